"""One cell, played: real parts on real servers, a fault at a step, and what became of the task."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import select, update

from dream.db import Database, DreamImage, DreamTask, DreamUpload, RevokedToken
from dream.db.clock import now
from dream.errors import FilesRefused
from dream.messages.arguments import STAGING_PREFIX
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import ImageState, TaskState
from dream.producer import Producer, direct
from dream.runs.connections import Connections
from dream.runs.sending import own_broker
from dream.runs.timetable import TIMETABLE
from dream.scheduler.expiry import Expiry
from dream.storage import Storage, new_key_stem
from dream.storage.keys import canonical_url, direct_key
from dream.variants import VariantSpec
from tests import promise
from tests.acceptance.faults import web
from tests.acceptance.faults.cells import Cell
from tests.acceptance.faults.servers import Postgres, Valkey
from tests.conftest import settings_from, wait_for
from tests.network import Proxy
from tests.pictures import noise
from tests.processes import Parts, Process
from tests.store_proxy import StoreProxy

__all__ = ["OF_FLOW", "QUICK", "Scene", "hold", "is_locked", "lock_sqlite"]

#: Clocks short enough for hundreds of cells; the ratios are those of the defaults.
QUICK = {
    "DREAM_LEASE_S": "1.5",
    "DREAM_LEASE_RENEW_S": "0.5",
    "DREAM_HEARTBEAT_S": "1.5",
    "DREAM_RESEND_AFTER_S": "1",
    "DREAM_RETRY_FIRST_S": "0.5",
    "DREAM_IMAGE_TIME_LIMIT_S": "4",
    "DREAM_S3_CONNECT_TIMEOUT_S": "1",
    "DREAM_S3_READ_TIMEOUT_S": "1",
    "DREAM_SHUTDOWN_TIMEOUT_S": "5",
    "DREAM_WORKER_THREADS": "2",
    "DREAM_VARIANTS": "thumb:64",
    "DREAM_KEEP_ORIGINALS": "yes",
    "DREAM_WIDTHS": "48",
}
#: Bytes that no row names are orphans at once, so an open upload needs its row. In one flow its time is short.
OF_FLOW = {
    "direct": {"DREAM_STAGING_ORPHAN_S": "0.001"},
    "expiry": {"DREAM_STAGING_ORPHAN_S": "0.001", "DREAM_DIRECT_UPLOAD_TTL_S": "4"},
}
DREAM_ID = 7
_CARD = VariantSpec.parse("card:64x64:cover")
#: A cell that begins with the start of `dream up` waits for that, too.
_HIT_S = 60.0
_END_S = 75.0


@dataclass
class Scene:
    """The parts that a cell is played with.

    Parameters:
      environment: the `DREAM_…` variables of its parts; its database has its tables, its bucket is there.
      valkey, store, postgres: the servers that can be struck; PostgreSQL only where the cell is about it.
      network: between the parts and the server that the cell is about, where that can be cut.
      database_url: where the database is reached though its network be cut.
      parts: starts processes.
      folder: for its files.
    """

    cell: Cell
    environment: dict[str, str]
    valkey: Valkey
    store: StoreProxy
    parts: Parts
    folder: Path
    postgres: Postgres | None = None
    network: Proxy | None = None
    database_url: str | None = None
    accepted: list[str] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    scheduler: Process | None = None
    #: Whether anything met what was broken: a request the store, a transaction the network.
    has_met: bool = True
    web: Process | None = None

    def __post_init__(self) -> None:
        self.settings = settings_from(self.environment)
        url = self.database_url or self.settings.database_url
        self.database = Database(self.settings.model_copy(update={"database_url": url}))
        self._counter = self.folder / "strikes"
        self._fault = {"DREAM_FAULT": f"{self.cell.point}={self.cell.action}*1@{self._counter}"}

    @property
    def _fault_of_parts(self) -> dict[str, str]:
        """The fault, unless it is for the web process: a scheduler submits at its start, too."""
        return {} if self.cell.process == "web" else self._fault

    def close(self) -> None:
        self.database.dispose()

    # --- the play

    def play(self, strike: Callable[[Scene], None]) -> str:
        """Play the cell; returns how its task ended. What breaks the promise is an AssertionError."""
        given = self._set_up()
        if self.cell.flow != "schedule":
            self._settle_the_timetable()
        self.start_parts()
        self._call(given)
        wait_for(lambda: self._counter.exists() and self._counter.read_text().strip(), _HIT_S, f"{self.cell.point}")
        wait_for(lambda: _state_of(self.struck) in "TtZX", what="the process standing still, or dead")
        strike(self)
        self.go_on()
        if self.web is not None:
            self.web.wait(60)
            self.accepted += web.accepted(self.parts.log_of(self.web))
        if self.cell.flow == "direct":
            self._complete_again()
        wait_for(self._has_ended, _END_S, lambda: f"the end of every task of {self.cell}: {self._states()}")
        self.stop_parts()
        self._check()
        return self._outcome()

    @property
    def struck(self) -> int:
        """The process that stands at the step."""
        return int(self._counter.read_text().split()[0])

    def go_on(self) -> None:
        """Let the process that stands still go on; it may be gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.struck, signal.SIGCONT)

    def go_on_if_struck(self) -> None:
        if self._counter.exists():
            self.go_on()

    def start_parts(self) -> None:
        """Start scheduler and workers, two where one is to be paused."""
        number = 2 if self.cell.fault == "paused" else 1
        self.workers = [self.parts.start("worker", ready=False, **self._fault_of_parts) for _ in range(number)]
        self.scheduler = self.parts.start("scheduler", ready=False, **self._fault_of_parts)

    def stop_parts(self) -> None:
        for part in [*self.workers, self.scheduler]:
            if part is not None:
                self.parts.stop(part, timeout_s=20)

    def task(self) -> DreamTask | None:
        """The cell's task, once it is recorded."""
        with self.database.read() as session:
            return session.scalars(select(DreamTask).where(DreamTask.name != "settled")).first()

    # --- before

    def _set_up(self) -> dict[str, Any]:
        Storage(self.settings).ensure_bucket(self.settings.s3_bucket)
        if self.cell.flow in ("upload", "direct"):
            return {"dream_id": DREAM_ID, "paths": [str(self._picture(number)) for number in (1, 2)]}
        if self.cell.flow == "variant":
            return {"image_id": self._stored_picture()["id"], "definition": _CARD.definition}
        if self.cell.flow == "remake":
            return {"image_id": self._stored_picture()["id"]}
        if self.cell.flow == "delete":
            return {"dream_id": DREAM_ID, "image_urls": [self._stored_picture() for _ in range(2)]}
        if self.cell.flow == "expiry":
            self._open_upload("over", -1)
            self._open_upload("open", 3600)
            return {}
        with self.database.begin() as session:
            session.add_all([RevokedToken(jti=f"old-{n}", expires_at=now(-60)) for n in range(3)])
        return {}

    def _open_upload(self, name: str, left_s: float) -> None:
        """A direct upload that nobody has completed: a row, and the bytes of one of its two files."""
        upload_id = str(uuid5(NAMESPACE_URL, name))
        files: Any = [{"staged": direct_key(upload_id, index)} for index in (0, 1)]
        Storage(self.settings).put_bytes(self.settings.staging_bucket, files[0]["staged"], noise())
        with self.database.begin() as session:
            values = {"dream_id": DREAM_ID, "file_count": 2, "size_bytes": 2}
            session.add(DreamUpload(id=upload_id, files=files, expires_at=now(left_s), **values))

    def _picture(self, number: int) -> Path:
        path = self.folder / f"{number}.jpg"
        path.write_bytes(noise())
        return path

    def _stored_picture(self) -> dict[str, Any]:
        """A picture as an earlier upload left it: a row and its object."""
        key = f"{new_key_stem()}.jpg"
        bucket, url = self.settings.s3_bucket, canonical_url(self.settings, key)
        Storage(self.settings).put_bytes(bucket, key, noise())
        with self.database.begin() as session:
            session.merge(_finished_task("stored", "settled"))
            session.flush()
            image = DreamImage(
                dream_id=DREAM_ID,
                task_id="stored",
                index=0,
                filename="stored.jpg",
                state=ImageState.COMPLETED,
                bucket=bucket,
                storage_key=key,
                url=url,
                width_px=160,
                height_px=120,
                content_type="image/jpeg",
            )
            session.add(image)
            session.flush()
            return {"id": image.id, "url": url}

    def _settle_the_timetable(self) -> None:
        """The clean-up of these days is done, so that no other task comes to the step."""
        today = date.today()
        with self.database.begin() as session:
            for entry in TIMETABLE:
                days = (today + timedelta(days=n) for n in (-2, -1, 0, 1))
                session.add_all([_finished_task(entry.task_id(day), "settled") for day in days])

    def _call(self, given: dict[str, Any]) -> None:
        """Call as the web layer does: in a process of its own where that is to be struck."""
        if self.cell.flow in ("schedule", "expiry"):
            return
        if self.cell.process == "web":
            program = ("-m", "tests.acceptance.faults.web")
            self.web = self.parts.start(self.cell.flow, json.dumps(given), program=program, ready=False, **self._fault)
            return
        with contextlib.closing(own_broker(self.settings)) as broker:
            producer = Producer(self.settings, Connections(self.settings, database=self.database, broker=broker))
            if self.cell.flow == "upload":
                files = [{"name": Path(path).name, "data": Path(path).read_bytes()} for path in given["paths"]]
                self.accepted.append(producer.upload_images(DREAM_ID, files, [0] * len(files)))
            elif self.cell.flow == "variant":
                self.accepted.append(web.ask(producer, **given))
            elif self.cell.flow == "remake":
                self.accepted.append(web.remake(producer, **given))
            else:
                self.accepted.append(producer.delete_images(DREAM_ID, given["image_urls"], "ann"))

    # --- after

    def _complete_again(self) -> None:
        """Complete the direct upload as a client that had no answer, or lost it: what was accepted stays."""
        with self.database.read() as session:
            begun = {*session.scalars(select(DreamUpload.id)), *(task.id for task in self._unsettled())}
        with contextlib.closing(own_broker(self.settings)) as broker:
            producer = Producer(self.settings, Connections(self.settings, database=self.database, broker=broker))
            for upload_id in begun:
                with contextlib.suppress(FilesRefused):
                    self.accepted.append(direct.complete(producer, DREAM_ID, upload_id)["task_id"])

    def _forget_uploads(self) -> None:
        """Let the time of the open upload pass, and check that only rows keep staged bytes then."""
        if self.cell.flow == "direct":
            with self.database.begin() as session:
                session.execute(update(DreamUpload).values(expires_at=now(-1)))
            Expiry(self.settings, Connections(self.settings, database=self.database)).sweep()
        promise.sweep_the_night(self.environment)
        with self.database.read() as session:
            named = {*session.scalars(select(DreamImage.staging_key).where(DreamImage.staging_key.is_not(None)))}
            left = session.scalars(select(DreamUpload)).all()
        staged = {key for key, _ in Storage(self.settings).list_keys(self.settings.staging_bucket, STAGING_PREFIX)}
        assert len(left) == (self.cell.flow == "expiry")
        assert staged == named | {upload.files[0]["staged"] for upload in left}

    def _unsettled(self) -> Sequence[DreamTask]:
        with self.database.read() as session:
            return session.scalars(select(DreamTask).where(DreamTask.name != "settled")).all()

    def _has_ended(self) -> bool:
        if self.cell.flow == "expiry":
            with self.database.read() as session:
                return len(session.scalars(select(DreamUpload)).all()) == 1
        tasks = self._unsettled()
        if not tasks and (self.accepted or self.cell.flow == "schedule"):
            return False
        return all(task.state.is_terminal and task.announced_at for task in tasks)

    def _states(self) -> list[str]:
        return [f"{task.name} {task.state} attempts={task.attempts} deaths={task.deaths}" for task in self._unsettled()]

    def _check(self) -> None:
        if self.cell.flow in OF_FLOW:
            self._forget_uploads()
        promise.sweep_the_night(self.environment)
        lost = self.cell.fault == "broker emptied"
        findings = promise.check(self.environment, self.accepted, events_were_lost=lost)
        assert findings.broken == [], str(findings)
        if self.cell.flow == "schedule":
            with self.database.read() as session:
                assert session.scalars(select(RevokedToken)).all() == []
            assert [task.name for task in self._unsettled()] == [CLEANUP_TOKENS]

        if self.cell.flow == "variant":
            [task] = self._unsettled() or [None]
            with self.database.read() as session:
                made = [each["name"] for each in session.scalars(select(DreamImage)).one().variants]
            assert made == ["card"] * (task is not None and task.state is TaskState.SUCCEEDED)

        if self.cell.flow == "remake":
            tasks = self._unsettled()
            is_made = [task.state for task in tasks] == [TaskState.SUCCEEDED]
            with self.database.read() as session:
                image = session.scalars(select(DreamImage)).one()
            assert image.state is ImageState.COMPLETED
            assert [each["name"] for each in image.variants] == ["thumb", "w48"] * is_made
            assert (image.remakes > 0) == is_made

    def _outcome(self) -> str:
        """Nothing was accepted, or how the task ended and what that took; or that nothing met what was broken."""
        if not self.has_met:
            return "not met"
        tasks = self._unsettled()
        if not tasks:
            return "removed" if self.cell.flow == "expiry" else "refused"
        [task] = tasks
        cost = [f"{task.attempts} retries"] * bool(task.attempts) + [f"{task.deaths} deaths"] * bool(task.deaths)
        return ", ".join([str(task.state), *cost])


def hold(seconds: float) -> None:
    """The length of an outage in seconds."""
    threading.Event().wait(seconds)


def lock_sqlite(path: str, seconds: float) -> None:
    """Hold the write lock, as another process would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        hold(seconds)
        connection.execute("ROLLBACK")


def is_locked(path: str, within_s: float = 2.0) -> bool:
    """Whether somebody holds the write lock for so long."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=within_s)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
    return False


def _finished_task(task_id: str, name: str) -> DreamTask:
    return DreamTask(id=task_id, name=name, args=[], state=TaskState.SUCCEEDED, finished_at=now(), announced_at=now())


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"

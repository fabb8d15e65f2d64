"""Back-up and restore by the commands of docs/deploy.md, while uploads and deletions go on."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
import pytest
from sqlalchemy import func, select

from dream.db import DreamImage, DreamTask
from dream.db.dreams import give_to
from dream.messages.arguments import STAGING_PREFIX
from dream.messages.states import ImageState, TaskState
from dream.stack import servers_only
from tests.acceptance.conftest import System
from tests.conftest import created_database, environment_in, prepare, settings_from, wait_for
from tests.nginx import program
from tests.processes import Parts, Process
from tests.promise import check, sweep_the_night

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"
DREAM = 7
QUICK = {"DREAM_RESEND_AFTER_S": "2", "DREAM_POOL_SIZE": "1"}


def _lines(heading: str, database: str) -> list[str]:
    """The commands of a section for one kind of database; the page has a line for each of the two in one place."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n", 1)[1]
    section = re.split(r"^#{2,3} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    [block] = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    other = {"postgresql": "# SQLite", "sqlite": "# PostgreSQL"}[database]
    return [line.partition("  #")[0].rstrip() for line in block.splitlines() if other not in line]


class Operator:
    """Types the commands of the page; `systemctl` stands for the parts of the test.

    Parameters:
      environment: the `DREAM_…` variables of the system.
      parts: its processes.
      remotes: what `store` and `backup` are for rclone: URL, keys and bucket of each.
    """

    def __init__(
        self, environment: Mapping[str, str], parts: Parts, remotes: Mapping[str, Mapping[str, str]], folder: Path
    ) -> None:
        self._parts, self._folder = parts, folder
        self._running: list[Process] = []
        self._buckets = {name: remote["DREAM_S3_BUCKET"] for name, remote in remotes.items()}
        self._environment = {
            "PATH": os.environ["PATH"],
            "DREAM_DATABASE_URL": environment["DREAM_DATABASE_URL"],
        }
        for name, remote in remotes.items():
            prefix = f"RCLONE_CONFIG_{name.upper()}_"
            self._environment |= {
                f"{prefix}TYPE": "s3",
                f"{prefix}PROVIDER": "Other",
                f"{prefix}ENDPOINT": remote["DREAM_S3_ENDPOINT_URL"],
                f"{prefix}ACCESS_KEY_ID": remote["DREAM_S3_ACCESS_KEY"],
                f"{prefix}SECRET_ACCESS_KEY": remote["DREAM_S3_SECRET_KEY"],
            }

    def types(self, line: str) -> None:
        words = shlex.split(line)
        if words[:2] == ["systemctl", "start"]:
            self._running = [self._parts.start(word.removeprefix("dream-"), ready=False, **QUICK) for word in words[2:]]
            return
        if words[:2] == ["systemctl", "stop"]:
            for process in self._running:
                assert self._parts.stop(process, 60) == 0
            return
        if words[0] == "runuser":
            assert words == ["runuser", "-u", "dream", "--", "/opt/dream/.venv/bin/dream", "migrate"]
            self._parts.stop(self._parts.start("migrate", ready=False), 60)
            return
        program(words[0])
        for name, bucket in self._buckets.items():
            line = line.replace(f"{name}:example-{'pictures' if name == 'store' else 'backup'}", f"{name}:{bucket}")
        line = line.replace("-o dream -g dream ", "")  # the test has no such user
        line = line.replace("/var/lib/dream/dream.db", urlsplit(self._environment["DREAM_DATABASE_URL"]).path)
        done = subprocess.run(
            ["sh", "-c", line], cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)


@contextmanager
def _users(system: System, jpeg: bytes) -> Iterator[None]:
    """Users who upload and delete all the time."""
    stopped = threading.Event()

    def upload() -> None:
        while not stopped.wait(0.3):
            system.producer.upload_images(DREAM, [{"name": f"{n}.jpg", "data": jpeg} for n in range(2)])
            with system.database.read() as session:
                done = session.scalar(select(DreamImage).where(DreamImage.state == ImageState.COMPLETED).limit(1))
            if done is not None and _count(system, DreamImage.state == ImageState.COMPLETED) > 6:
                system.producer.delete_images(DREAM, [{"id": done.id, "url": done.url}], "ann")

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(60)


def _count(system: System, condition: object) -> int:
    with system.database.read() as session:
        return session.scalar(select(func.count(DreamImage.id)).where(condition)) or 0  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_postgres_url(postgres_server_url: str) -> Iterator[str]:
    """A database without tables."""
    with created_database(postgres_server_url, f"dream_{uuid4().hex[:12]}") as url:
        yield url


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_restored_database_and_bucket_agree_after_the_sweep_and_unfinished_tasks_go_on(
    database: str,
    environment: dict[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    jpeg: bytes,
) -> None:
    """The dump is a moment's; the bucket is read while users go on; all servers of the restored system are new."""
    if database == "postgresql":
        environment["DREAM_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    prepare(settings_from(environment))
    with servers_only(tmp_path / "new-servers") as new_servers:
        (new_folder := tmp_path / "new").mkdir()
        new = environment_in(new_folder, dict(new_servers)) | {
            "DREAM_S3_BUCKET": environment["DREAM_S3_BUCKET"],
            "DREAM_STAGING_ORPHAN_S": "0.001",
        }
        if database == "postgresql":
            new["DREAM_DATABASE_URL"] = request.getfixturevalue("empty_postgres_url")
        backup = {**new, "DREAM_S3_BUCKET": f"backup-{uuid4().hex[:8]}"}
        _make_buckets(new, backup)
        (old_parts := tmp_path / "old-parts").mkdir()
        _back_up(database, environment, backup, Parts(environment, old_parts), tmp_path, jpeg)
        (new_parts := tmp_path / "new-parts").mkdir()
        _restore(database, new, backup, Parts(new, new_parts), tmp_path)


def _make_buckets(*environments: Mapping[str, str]) -> None:
    from dream.storage import Storage

    for each in environments:
        settings = settings_from(dict(each))
        Storage(settings).ensure_bucket(settings.s3_bucket)


def _back_up(
    database: str, environment: dict[str, str], backup: dict[str, str], parts: Parts, folder: Path, jpeg: bytes
) -> None:
    system = System(settings_from(environment))
    with system.database.begin() as session:
        give_to(session, DREAM, 11, "ann")
    operator = Operator(environment, parts, {"store": environment, "backup": backup}, folder)
    try:
        operator.types("systemctl start dream-worker dream-scheduler")
        with _users(system, jpeg):
            wait_for(lambda: _count(system, DreamImage.state == ImageState.DELETED) > 1, 120, "deleted pictures")
            wait_for(lambda: _count(system, DreamImage.state == ImageState.COMPLETED) > 5, 120, "completed pictures")
            for line in _lines("Back-up", database):
                operator.types(line)
                if line.startswith("systemctl stop"):  # users go on, and nothing works for them
                    wait_for(lambda: _count(system, DreamImage.state == ImageState.PENDING) > 3, 60, "waiting pictures")
                elif "dream.dump" in line:  # staged after the dump: bytes without a row in it
                    _await_upload(system)
        wait_for(lambda: not _count(system, DreamImage.state == ImageState.PENDING), 120, "the end of all tasks")
    finally:
        system.close()
        parts.end()


def _await_upload(system: System) -> None:
    count = _count(system, DreamImage.id > 0)
    wait_for(lambda: _count(system, DreamImage.id > 0) > count, 60, "an upload after the dump")


def _restore(database: str, new: dict[str, str], backup: dict[str, str], parts: Parts, folder: Path) -> None:
    operator = Operator(new, parts, {"store": new, "backup": backup}, folder)
    system: System | None = None
    try:
        for line in _lines("Restore", database):
            if line.startswith("systemctl start"):
                system = System(settings_from(new))
                waiting = _count(system, DreamImage.state == ImageState.PENDING)
                assert waiting > 3
                staged = [key for key in system.objects() if key.startswith(STAGING_PREFIX)]
                assert len(staged) > waiting  # an upload came after the dump
            operator.types(line)
        assert system is not None
        with system.database.read() as session:
            accepted = list(session.scalars(select(DreamTask.id)))
        for task_id in accepted:
            assert system.await_end(task_id, 120).state is TaskState.SUCCEEDED
        sweep_the_night(new)
        findings = check(new, accepted, events_were_lost=True)
        assert findings.broken == []
        assert findings.counts["pictures completed"] > 5
        assert [key for key in system.objects() if key.startswith(STAGING_PREFIX)] == []
        assert _policies(new) == {"private, max-age=31536000, immutable"}
    finally:
        if system is not None:
            system.close()
        parts.end()


def _policies(environment: Mapping[str, str]) -> set[str]:
    """The cache policies of the objects."""
    client = boto3.client(
        "s3",
        endpoint_url=environment["DREAM_S3_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=environment["DREAM_S3_ACCESS_KEY"],
        aws_secret_access_key=environment["DREAM_S3_SECRET_KEY"],
    )
    bucket = environment["DREAM_S3_BUCKET"]
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    return {client.head_object(Bucket=bucket, Key=key).get("CacheControl", "") for key in keys}

"""Error reports by `DREAM_SENTRY_DSN`: real processes, and an HTTP server of the tests' own in place of Sentry."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dream.compat import Celery
from dream.db import RevokedToken
from dream.messages.registry import CLEANUP_TOKENS, PROCESS_IMAGES
from dream.version import __version__
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.gateway import DREAM, Gateway, auth, emptied
from tests.posts import taking_posts
from tests.processes import Parts
from tests.this_process import configured

pytestmark = pytest.mark.slow

SHOP = """
from dream.compat import Celery

app = Celery("shop")

@app.task(name="shop.fail")
def fail(name):
    secret_variable = "-".join(["ottilie", "in", "a", "variable"])
    raise LookupError("https://ottilie:password@host/?token=wombat is gone")

@app.task(name="shop.again", bind=True, max_retries=1, default_retry_delay=0.1)
def again(self):
    raise self.retry(exc=KeyError("again"))

@app.task(name="shop.recovers", bind=True, autoretry_for=(OSError,), max_retries=1, default_retry_delay=0.1)
def recovers(self):
    if not self.request.retries:
        raise OSError("not yet")
"""


@dataclass
class Reports:
    """The reports that a server in place of Sentry got."""

    dsn: str
    bodies: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The error reports so far."""
        lines = [json.loads(line) for body in list(self.bodies) for line in body.split(b"\n") if line]
        return [line for line in lines if "event_id" in line and "level" in line]

    def of(self, task_id: str) -> list[dict[str, Any]]:
        """The reports of a task."""
        return [each for each in self.events if each.get("tags", {}).get("task_id") == task_id]


@contextmanager
def reporting() -> Iterator[Reports]:
    bodies: list[bytes] = []
    with taking_posts(bodies) as port:
        yield Reports(f"http://key@127.0.0.1:{port}/1", bodies)


@dataclass
class Told:
    """The reports of a worker, and which task is which."""

    reports: Reports
    ids: dict[str, str]


@pytest.fixture(scope="module", params=[True, False], ids=["with Celery", "without Celery"])
def told(
    request: pytest.FixtureRequest, servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("dsn")
    (folder / "shop.py").write_text(SHOP)
    if not request.param:
        (folder / "celery.py").write_text("raise ImportError('not here')")
    quick = {"DREAM_MAX_RETRIES": "1", "DREAM_RETRY_FIRST_S": "0.1", "SENTRY_ENVIRONMENT": "tests"}
    with reporting() as reports:
        environment = {**environment_in(folder, servers), **quick, "DREAM_SENTRY_DSN": reports.dsn}
        prepare(settings_from(environment))
        with sqlite3.connect(folder / "dream.db") as database:
            database.execute(f"DROP TABLE {RevokedToken.__tablename__}")
        parts = Parts({**environment, "PYTHONPATH": str(folder)}, folder)
        with configured(environment), ExitStack() as stack:
            stack.callback(parts.end)
            worker, app = parts.start("worker", "-A", "shop", cwd=folder), Celery("caller")
            sent = {name: app.send_task(f"shop.{name}", ["ottilie"] * (name == "fail")) for name in NAMES}
            sent["own"] = app.send_task(CLEANUP_TOKENS)
            pictures = [{"name": "ottilie.jpg", "data": "bm8gcGljdHVyZQ=="}]
            sent["bad_picture"] = app.send_task(PROCESS_IMAGES, (7, pictures, [0]))
            for name, each in sent.items():
                wait_for(each.ready, what=f"the end of {name}")
            assert parts.stop(worker) == 0
        yield Told(reports, {name: each.id for name, each in sent.items()})


NAMES = ("fail", "again", "recovers")


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [
        ("fail", "LookupError", "shop.fail"),
        ("again", "KeyError", "shop.again"),
        ("own", "OperationalError", CLEANUP_TOKENS),
        ("bad_picture", "ImageRejected", PROCESS_IMAGES),
    ],
)
def test_a_task_that_fails_for_good_is_one_report_with_its_name_and_id(
    told: Told, name: str, kind: str, task: str
) -> None:
    [report] = told.reports.of(told.ids[name])
    assert report["exception"]["values"][-1]["type"] == kind
    assert report["tags"]["task_name"] == task
    assert (report["release"], report["environment"]) == (f"dream@{__version__}", "tests")


def test_no_other_report_came(told: Told) -> None:
    assert told.reports.of(told.ids["recovers"]) == []
    assert len(told.reports.events) == 4


def test_reports_carry_no_variables_arguments_tokens_or_passwords(told: Told) -> None:
    sent = b"".join(told.reports.bodies)
    assert b"https://***@host/?token=*** is gone" in sent
    told_secrets = ("ottilie-in-a-variable", "['ottilie']", "ottilie.jpg", "ottilie:password", "wombat")
    assert [secret for secret in told_secrets if secret.encode() in sent] == []


def test_a_fault_that_a_request_meets_in_the_gateway_is_a_report(servers: dict[str, str], tmp_path: Path) -> None:
    with reporting() as reports:
        environment = {**environment_in(tmp_path, servers), "DREAM_SENTRY_DSN": reports.dsn}
        with Gateway(environment, prepare(settings_from(environment)), tmp_path) as gateway:
            emptied(gateway)
            gateway.add_image()
            with sqlite3.connect(tmp_path / "dream.db") as database:
                database.execute("UPDATE dream_images SET variants = 'ottilie'")
            assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).status_code == 500
            wait_for(lambda: reports.events, what="the report of a bug")
            with sqlite3.connect(tmp_path / "dream.db") as database:
                database.execute("DROP TABLE dream_images")
            assert gateway.http.get(f"/api/dreams/{DREAM}/images?cursor=ottilie", headers=auth()).status_code == 400
            assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).status_code == 503
            wait_for(lambda: len(reports.events) > 1, what="the report of a fault")
    bug, fault = reports.events
    assert bug["exception"]["values"][-1]["type"] == "JSONDecodeError"
    assert "server_fault" in fault["logentry"]["message"]
    assert b"Bearer" not in b"".join(reports.bodies)


def test_a_bug_in_the_scheduler_and_the_crash_of_a_picture_are_reports(servers: dict[str, str], tmp_path: Path) -> None:
    """A row that no code can read, and a process of the pool that is killed at each picture."""
    with reporting() as reports, ExitStack() as stack:
        quick = {"DREAM_MAX_RETRIES": "0", "DREAM_SENTRY_DSN": reports.dsn, "DREAM_FAULT": "decode:before=kill"}
        environment = {**environment_in(tmp_path, servers), **quick}
        prepare(settings_from(environment))
        parts = Parts(environment, tmp_path)
        stack.callback(parts.end)
        stack.enter_context(configured(environment))
        worker = parts.start("worker")
        failed = Celery("caller").send_task(PROCESS_IMAGES, (7, [{"name": "a.jpg", "data": "bm8="}], [0]))
        wait_for(failed.ready, what="the end of the task")
        assert parts.stop(worker) == 0
        with sqlite3.connect(tmp_path / "dream.db") as database:
            database.execute(
                "INSERT INTO dream_tasks (id, name, args, state, due_at, created_at) "
                "VALUES ('a', 'b', '[]', 'queued', '0 ottilie', '2026-01-01 00:00:00')"
            )
        scheduler = parts.start("scheduler")
        wait_for(lambda: len(reports.events) > 1, what="the report of the bug")
        assert parts.stop(scheduler) == 0
    crash, *bugs = reports.events
    assert crash["exception"]["values"][-1]["type"] == "ImageCrashed"
    assert {bug["exception"]["values"][-1]["type"] for bug in bugs} == {"ValueError"}  # of each job that reads it


def test_a_broker_that_is_away_is_a_warning_and_no_report(servers: dict[str, str], tmp_path: Path) -> None:
    with reporting() as reports:
        away = {"DREAM_BROKER_URL": "redis://127.0.0.1:1/0", "DREAM_REDIS_URL": servers["DREAM_BROKER_URL"]}
        environment = {**environment_in(tmp_path, servers), **away, "DREAM_SENTRY_DSN": reports.dsn}
        parts = Parts(environment, tmp_path)
        try:
            worker = parts.start("worker", ready=False)
            wait_for(lambda: "connection error" in parts.log_of(worker), 60, "the first try")
            assert parts.stop(worker) == 0
            lines = [json.loads(line) for line in parts.log_of(worker).splitlines() if "connection error" in line]
            assert {line["level"] for line in lines} == {"warning"}
            assert reports.events == []
        finally:
            parts.end()


def test_a_dsn_that_is_away_delays_no_stop(servers: dict[str, str], tmp_path: Path) -> None:
    environment = {**environment_in(tmp_path, servers), "DREAM_SENTRY_DSN": "http://key@127.0.0.1:1/1"}
    prepare(settings_from(environment))
    with configured(environment):
        parts = Parts(environment, tmp_path)
        worker = parts.start("worker")
        failed = Celery("caller").send_task(PROCESS_IMAGES, (7, [{"name": "a.jpg", "data": "bm8="}], [0]))
        wait_for(failed.ready, what="the end of the task")
        assert parts.stop(worker, timeout_s=15) == 0
        parts.end()

"""Sentry, as a caller's code sets it up, in a real worker: Celery is installed, as in the tests' environment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from dream.celery.tasks import process_and_upload_images
from dream.compat import Celery
from dream.db import RevokedToken
from dream.messages.registry import CLEANUP_TOKENS, PROCESS_IMAGES
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import Parts
from tests.this_process import configured

pytestmark = pytest.mark.slow

SHOP = """
import json, os, sys, time
import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport
from dream.compat import Celery, signals

class Kept(Transport):
    def capture_envelope(self, envelope):
        with open("envelopes", "a") as file:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    file.write(json.dumps({"type": item.type, **item.payload.json}, default=str) + "\\n")

@signals.celeryd_init.connect
def set_up(**_):
    if INTEGRATIONS_LATE:
        init()

def init():
    sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=Kept, traces_sample_rate=1.0,
                    integrations=INTEGRATIONS)

INTEGRATIONS, INTEGRATIONS_LATE = WANTED
if not INTEGRATIONS_LATE:
    init()

app = Celery("shop")

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.fail")
def fail():
    raise LookupError("gone")

@app.task(name="shop.captures")
def captures():
    try:
        raise LookupError("captured by the task itself")
    except LookupError as error:
        sentry_sdk.capture_exception(error)
        raise

@app.task(name="shop.again", bind=True, max_retries=2, default_retry_delay=0.1)
def again(self):
    raise self.retry(exc=KeyError("again"))

@app.task(name="shop.recovers", bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=0.1)
def recovers(self):
    if not self.request.retries:
        raise OSError("not yet")

@app.task(name="shop.expected", throws=(LookupError,))
def expected():
    raise LookupError("expected")

@app.task(name="shop.outer")
def outer():
    fail.apply(throw=False)
    raise ValueError("outer")

@app.task(name="shop.endless", time_limit=0.2)
def endless():
    while True:
        time.sleep(0.01)

@app.task(name="shop.blocks", time_limit=0.2)
def blocks():
    time.sleep(60)

@app.task(name="shop.unjson")
def unjson():
    return object()

if __name__ == "__main__":
    app.worker_main(["worker", "-c", "1"])
"""
NAMES = ("add", "fail", "captures", "again", "recovers", "expected", "outer", "endless", "unjson")
#: How Sentry is set up: its integrations, and whether in `celeryd_init`, as its documentation has it for Celery.
SET_UPS = {
    "by default, in celeryd_init": "[], True",
    "with its integration for Celery": "[CeleryIntegration()], False",
    "without events of the log": "[LoggingIntegration(event_level=None)], False",
    "with its integration for Dramatiq": "[DramatiqIntegration()], False",
}


@dataclass
class Told:
    """The events that Sentry got, and which task is which."""

    envelopes: list[dict[str, Any]]
    ids: dict[str, str]

    def errors(self, name: str) -> list[dict[str, Any]]:
        """The events of a task's run."""
        events = [each for each in self.envelopes if each["type"] == "event"]
        return [each for each in events if each.get("tags", {}).get("task_id") == self.ids[name]]


def kind_of(event: dict[str, Any]) -> str:
    return str(event["exception"]["values"][-1]["type"])


@pytest.fixture(scope="module", params=SET_UPS.values(), ids=SET_UPS.keys())
def told(
    request: pytest.FixtureRequest, servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("sentry")
    more = {"DREAM_MAX_RETRIES": "1", "DREAM_RETRY_FIRST_S": "0.1"}
    environment = {**environment_in(folder, servers), **more}
    (folder / "shop.py").write_text(SHOP.replace("WANTED", request.param))
    prepare(settings_from(environment))
    with sqlite3.connect(folder / "dream.db") as database:
        database.execute(f"DROP TABLE {RevokedToken.__tablename__}")
    with configured(environment), ExitStack() as stack:
        parts, app = Parts(environment, folder), Celery("caller")
        stack.callback(parts.end)
        worker = parts.start(program=[str(folder / "shop.py")], cwd=folder)
        sent = {name: app.send_task(f"shop.{name}", (1, 2) if name == "add" else ()) for name in NAMES}
        sent["endless_too"] = app.send_task("shop.endless")
        sent["own"] = app.send_task(CLEANUP_TOKENS)
        sent["bad_picture"] = process_and_upload_images.delay(7, [{"name": "a.jpg", "data": "bm8gcGljdHVyZQ=="}], [0])
        for name, each in sent.items():
            wait_for(each.ready, what=f"the end of {name}")
        sent["blocks"] = app.send_task("shop.blocks")
        wait_for(sent["blocks"].ready, what="the end of what blocks")
        wait_for(lambda: worker.poll() is not None or "worker_stopping" in parts.log_of(worker), what="its replacement")
        parts.end()
        ends = [json.loads(line) for line in (folder / "envelopes").read_text().splitlines()]
        yield Told(ends, {name: each.id for name, each in sent.items()})


@pytest.mark.parametrize(
    ("name", "kind", "transaction"),
    [
        ("fail", "LookupError", "shop.fail"),
        ("captures", "LookupError", "shop.captures"),
        ("again", "KeyError", "shop.again"),
        ("endless", "TimeLimitExceeded", "shop.endless"),
        ("endless_too", "TimeLimitExceeded", "shop.endless"),
        ("blocks", "TimeLimitExceeded", "shop.blocks"),
        ("unjson", "EncodeError", "shop.unjson"),
        ("own", "OperationalError", CLEANUP_TOKENS),
        ("bad_picture", "ImageRejected", PROCESS_IMAGES),
    ],
)
def test_a_task_that_fails_is_one_event_of_its_own_transaction(
    told: Told, name: str, kind: str, transaction: str
) -> None:
    """Also after several runs, also where its thread blocks, and twice the same is two."""
    [event] = told.errors(name)
    assert (kind_of(event), event["transaction"]) == (kind, transaction)
    assert event["tags"]["celery_task_id"] == told.ids[name]
    assert event["contexts"]["task"]["name"] == transaction


@pytest.mark.parametrize("name", ["add", "recovers", "expected"])
def test_what_did_not_fail_for_good_or_is_expected_is_no_event(told: Told, name: str) -> None:
    assert told.errors(name) == []


def test_a_task_inside_a_task_takes_no_event_away(told: Told) -> None:
    assert "ValueError" in [kind_of(each) for each in told.errors("outer")]


def test_each_run_is_a_transaction(told: Told) -> None:
    names = [each["transaction"] for each in told.envelopes if each["type"] == "transaction"]
    assert [names.count(f"shop.{name}") for name in ("add", "fail", "again", "recovers")] == [1, 1, 3, 2]
    assert names.count(CLEANUP_TOKENS) == 2

"""Signals: who hears what, in which order, and that a listener's error harms nobody."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from dream.compat import Celery, signals
from dream.compat.envelope import Envelope
from dream.compat.signals import Signal
from dream.settings import Settings
from dream.work.connection import Connection
from tests.unit.list_broker import ListBroker

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker


def test_a_run_tells_of_its_way() -> None:
    heard: list[str] = []
    names = ("task_prerun", "task_success", "task_failure", "task_retry", "task_postrun")

    def hear(signal: Signal, **_: Any) -> None:
        heard.append(signal.name)

    app = Celery("shop", task_always_eager=True)
    again = app.task(name="shop.again", bind=True, max_retries=1)(lambda self: self.retry())
    fine = app.task(name="shop.fine")(lambda: None)
    try:
        for name in names:
            getattr(signals, name).connect(hear)
        fine.delay()
        again.delay()
    finally:
        for name in names:
            getattr(signals, name).disconnect(hear)
    assert heard == [
        *("task_prerun", "task_success", "task_postrun"),
        *("task_prerun", "task_retry", "task_postrun"),
        *("task_prerun", "task_failure", "task_postrun"),
    ]


def test_a_listener_may_want_one_sender_and_be_taken_away() -> None:
    signal, heard = Signal("test"), []

    @signal.connect(sender="shop.add", weak=False)
    def hear(sender: Any, **_: Any) -> None:
        heard.append(sender)

    signal.send("shop.add")
    signal.send("shop.other")
    assert signal.disconnect(hear, sender="shop.add")
    signal.send("shop.add")
    assert heard == ["shop.add"]


def test_an_error_of_a_listener_is_logged_and_the_next_one_hears(caplog: pytest.LogCaptureFixture) -> None:
    signal, heard = Signal("test"), []

    def fail(**_: Any) -> None:
        raise KeyError("x")

    def hear(**_: Any) -> None:
        heard.append(1)

    signal.connect(fail)
    signal.connect(hear)
    (_, error), _ = signal.send(None)
    assert isinstance(error, KeyError)
    assert heard == [1]
    assert "the signal test failed" in caplog.text


def test_a_listener_that_nobody_holds_is_forgotten() -> None:
    signal = Signal("test")

    def listen() -> None:
        def hear(**_: Any) -> None:
            raise AssertionError

        signal.connect(hear)

    listen()
    gc.collect()
    assert signal.send(None) == []


def test_headers_that_a_listener_adds_are_the_tasks() -> None:
    app, broker = Celery("shop"), ListBroker()
    app.servers = Connection(Settings(), broker=cast("AnyBroker", broker))

    def add(headers: dict[str, Any], **_: Any) -> None:
        headers["request_id"] = "r1"

    signals.before_task_publish.connect(add)
    try:
        app.send_task("shop.add", headers={"tenant": 7})
    finally:
        signals.before_task_publish.disconnect(add)
    assert Envelope.from_message(broker.sent[0][0]).headers == {"tenant": 7, "request_id": "r1"}


def test_the_page_names_those_that_are_sent_and_no_other() -> None:
    root = Path(__file__).resolve().parents[3]
    code = "\n".join(path.read_text() for path in (root / "dream").rglob("*.py"))
    [row] = re.findall(r"^\| `celery.signals` \|.*$", (root / "docs/celery.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(re.findall(r"\bsignals\.(\w+)\.send\(", code))

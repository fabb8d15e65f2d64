"""A scheduler whose app's entries misbehave."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest
from prometheus_client import CollectorRegistry

from dream.db import Base
from dream.db.session import make_engine
from dream.observe.metrics import JOB_FAILURES
from dream.producer import Producer
from dream.scheduler.periodic import OwnEntry, Periodic
from dream.scheduler.runner import Runner
from dream.scheduler.sweep import Sweep
from dream.settings import Settings
from tests.conftest import wait_for


class Hanging:
    """An entry of an app whose schedule does not answer before the test lets it."""

    name = "hanging"

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def is_due(self, _counted_from: datetime) -> tuple[bool, float]:
        self.is_asked.set()
        self.may_answer.wait()
        return False, 60.0

    def due_at(self, _counted_from: datetime, now: datetime) -> datetime:
        return now

    def is_known(self, _task_id: str) -> bool:
        return False

    def send(self, _task_id: str) -> None: ...


def test_an_entry_that_hangs_holds_up_no_task_of_the_timetable(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert producer.database is not None  # its tables are there
    looks: list[str] = []

    def look(entry: OwnEntry) -> float:
        looks.append(entry.name)
        return 0.05

    monkeypatch.setattr(OwnEntry, "send_if_due", look)
    hanging = Hanging()
    runner = Runner(settings, [hanging])
    runner.start()
    try:
        assert hanging.is_asked.wait(10)
        before = len(looks)
        wait_for(lambda: len(looks) > before + 2, what="another look at the timetable")
    finally:
        hanging.may_answer.set()
        runner.stop()


def test_a_job_that_fails_again_and_again_is_one_line_and_one_when_it_works(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks, resend = [], Sweep.resend

    def counted(sweep: Sweep) -> int:
        looks.append(sweep)
        return resend(sweep)

    monkeypatch.setattr(Sweep, "resend", counted)
    caplog.set_level("INFO")
    engine = make_engine(settings.database_url)
    Base.metadata.drop_all(engine)
    runner = Runner(settings.model_copy(update={"resend_after_s": 0.4}))
    runner.start()
    try:
        wait_for(lambda: len(looks) > 3, what="three looks without tables")
        Base.metadata.create_all(engine)
        wait_for(lambda: "job_works_again job=resend" in caplog.text, what="the line that it works")
    finally:
        runner.stop()
        engine.dispose()
    assert caplog.text.count("job_failed job=resend") == 1
    assert caplog.text.count("job_works_again job=resend") == 1


def test_a_job_that_fails_by_a_bug_counts_as_failed(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert producer.database is not None  # its tables are there

    def wrong(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(Sweep, "announce", wrong)
    monkeypatch.setattr(Periodic, "send_due", wrong)
    registry = CollectorRegistry()

    def failures(job: str) -> float:
        return registry.get_sample_value("dream_job_failures_total", {"name": job}) or 0

    JOB_FAILURES.switch_on(registry)
    runner = Runner(settings)
    try:
        runner.start()
        wait_for(lambda: failures("announce") > 0 < failures("timetable"), what="both failures")
    finally:
        runner.stop()
        JOB_FAILURES.switch_off()
    assert registry.get_sample_value("dream_job_failures_total", {"name": "resend"}) == 0

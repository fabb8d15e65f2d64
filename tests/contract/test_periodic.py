"""Periodic tasks, on SQLite and PostgreSQL: each due time is sent once, whatever else happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import update

from dream.compat import Celery
from dream.compat.periodic import PeriodicTask
from dream.compat.schedules import BaseSchedule, crontab, schedule
from dream.db import Database, DreamPeriodic, periodic
from dream.db.clock import now
from dream.errors import BrokerUnavailable, InvalidArguments
from dream.scheduler.periodic import Periodic
from tests.conftest import wait_for

START = datetime(2026, 5, 4, 3, tzinfo=UTC)


class Sending(PeriodicTask):
    """An entry whose runs are noted; the broker does with each what the test says."""

    sent: list[str]
    begun: Sequence[str]
    broker: Callable[[str], None]

    def send(self, task_id: str) -> None:
        self.broker(task_id)
        self.sent.append(task_id)

    def is_known(self, task_id: str) -> bool:
        return task_id in self.begun


def entry(
    name: str, due: BaseSchedule, broker: Callable[[str], None] = lambda _: None, begun: Sequence[str] = ()
) -> Sending:
    app = Celery("shop")
    due.app = app
    made = Sending(app, name, "shop.task", due, (), {}, {})
    made.__dict__.update(sent=[], broker=broker, begun=begun)
    return made


def count_from(database: Database, name: str, at: datetime) -> None:
    with database.begin() as session:
        session.add(DreamPeriodic(name=name, ran_at=at))


def daily() -> crontab:
    """Due twelve hours from now, and not a moment after this test has looked at its clock."""
    at = datetime.now(UTC) + timedelta(hours=12)
    return crontab(minute=at.minute, hour=at.hour)


def row(database: Database, name: str) -> DreamPeriodic:
    with database.read() as session:
        found = session.get(DreamPeriodic, name)
    assert found is not None
    return found


def test_a_due_time_is_taken_by_one_scheduler(database: Database) -> None:
    count_from(database, "e", START)

    def take(number: int) -> bool:
        with database.begin() as session:
            return periodic.take(session, "e", START, START + timedelta(seconds=1), f"run-{number}")

    with ThreadPoolExecutor(4) as schedulers:
        assert sum(schedulers.map(take, range(8))) == 1


def test_a_new_entry_is_counted_from_now_and_not_run_at_once(database: Database) -> None:
    new = entry("e", daily())
    Periodic(database, [new]).send_due()
    assert new.sent == []
    assert abs(row(database, "e").ran_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_two_schedulers_send_each_due_time_once_and_keep_the_beat(database: Database) -> None:
    entries = [entry("quick", schedule(0.2)) for _ in range(2)]
    schedulers = [Periodic(database, [each]) for each in entries]
    times: list[datetime] = []

    def beat(scheduler: Periodic) -> None:
        while len(times) < 6:
            scheduler.send_due()
            times[:] = sorted({*times, row(database, "quick").ran_at})

    with ThreadPoolExecutor(2) as threads:
        for each in schedulers:
            threads.submit(beat, each)
    ids = [*entries[0].sent, *entries[1].sent]
    assert len(ids) == len(set(ids)) >= 5
    assert all(later - earlier >= timedelta(seconds=0.2) for earlier, later in pairwise(times))


def test_what_was_missed_while_no_scheduler_ran_is_sent_once(database: Database) -> None:
    count_from(database, "e", START)
    missed = entry("e", daily())
    Periodic(database, [missed]).send_due()
    Periodic(database, [missed]).send_due()
    assert len(missed.sent) == 1
    assert datetime.now(UTC) - row(database, "e").ran_at < timedelta(minutes=1)


def test_one_that_was_taken_and_not_sent_is_sent_by_another_under_the_same_id(database: Database) -> None:
    """The broker was away, or the scheduler died between the two."""
    asked: list[str] = []

    def away(task_id: str) -> None:
        asked.append(task_id)
        raise BrokerUnavailable

    count_from(database, "e", START)
    Periodic(database, [entry("e", daily(), away)]).send_due()
    healthy = entry("e", daily())
    Periodic(database, [healthy]).send_due()
    assert healthy.sent == [], "its scheduler may still send it"
    with database.begin() as session:
        session.execute(update(DreamPeriodic).values(taken_at=now(-11)))
    Periodic(database, [healthy]).send_due()
    assert (healthy.sent, row(database, "e").task_id) == (asked, None)


def test_one_that_was_sent_and_has_begun_is_not_sent_again(database: Database) -> None:
    """Its scheduler died before it could say so."""
    with database.begin() as session:
        session.add(DreamPeriodic(name="e", ran_at=datetime.now(UTC), task_id="run", taken_at=now(-11)))
    healthy = entry("e", daily(), begun=["run"])
    Periodic(database, [healthy]).send_due()
    assert (healthy.sent, row(database, "e").task_id) == ([], None)


@pytest.mark.parametrize("error", [InvalidArguments("no"), TypeError("no")])
def test_an_entry_that_cannot_be_sent_is_told_and_stops_no_other(
    database: Database, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(_: str) -> None:
        raise error

    for name in ("wrong", "right"):
        count_from(database, name, START)
    right = entry("right", daily())
    Periodic(database, [entry("wrong", daily(), refuse), right]).send_due()
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "periodic_task_not_sent" in told
    assert "wrong" in told
    assert len(right.sent) == 1
    assert row(database, "wrong").task_id is None


def test_it_asks_again_when_the_next_is_due_and_within_five_seconds(database: Database) -> None:
    assert Periodic(database, [entry("late", schedule(100))]).send_due() == 5
    quick = entry("quick", schedule(0.3))
    scheduler = Periodic(database, [quick])
    assert 0 < scheduler.send_due() <= 0.3
    wait_for(lambda: scheduler.send_due() and quick.sent, 5, "the run")


class Broken(schedule):
    """A schedule of a caller's own that fails."""

    trouble: BaseException = SystemExit(3)

    def is_due(self, _last_run_at: datetime) -> tuple[bool, float]:
        raise self.trouble


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [LookupError("x"), SystemExit(3), ZeroDivisionError()])
def test_what_a_callers_schedule_or_task_raises_keeps_no_other_entry_from_its_turn(
    database: Database, trouble: BaseException
) -> None:
    """Sending may run code of a caller's: `apply_async` of a base class, say."""
    due = schedule(timedelta(seconds=1))
    broken = Broken(timedelta(seconds=1))
    broken.trouble = trouble

    def refuse(_task_id: str) -> None:
        raise trouble

    wrong, unlucky, fine = entry("a", broken), entry("b", due, refuse), entry("c", schedule(timedelta(seconds=1)))
    for each in (wrong, unlucky, fine):
        count_from(database, each.name, START)
    periodic_ = Periodic(database, [wrong, unlucky, fine])
    periodic_.send_due()
    assert (len(fine.sent), unlucky.sent) == (1, [])
    assert row(database, "b").task_id is None

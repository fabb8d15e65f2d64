"""The timetable: the clean-up at 03:00, once a date however many schedulers run."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from dream.messages.registry import CLEANUP_TOKENS
from dream.runs.timetable import NIGHTLY_AT, TIMETABLE, Daily

[CLEAN_UP] = TIMETABLE


def test_the_timetable_is_that_of_the_contract() -> None:
    assert Daily("cleanup-expired-tokens", CLEANUP_TOKENS, time(3, 0)) == CLEAN_UP


def test_leftovers_are_removed_after_the_clean_up() -> None:
    assert CLEAN_UP.at < NIGHTLY_AT


def test_a_days_run_has_one_id() -> None:
    assert CLEAN_UP.task_id(date(2026, 1, 2)) == "cleanup-expired-tokens:2026-01-02"


def test_days_have_different_ids() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(400)]
    assert len({CLEAN_UP.task_id(day) for day in days}) == 400


@pytest.mark.parametrize(
    ("at", "is_due"),
    [
        (time(0, 0), False),
        (time(2, 59, 59, 999999), False),
        (time(3, 0), True),
        (time(3, 0, 0, 1), True),
        (time(23, 59, 59), True),
    ],
)
def test_it_is_due_from_three_to_midnight(at: time, is_due: bool) -> None:
    """So a scheduler that starts late in the day still runs what was missed."""
    assert CLEAN_UP.is_due(datetime.combine(date(2026, 1, 2), at, UTC)) is is_due


@pytest.mark.parametrize(
    ("started", "day"),
    [
        (datetime(2026, 1, 2, 1, 0, tzinfo=UTC), date(2026, 1, 1)),
        (datetime(2026, 1, 2, 3, 0, tzinfo=UTC), date(2026, 1, 2)),
        (datetime(2026, 1, 2, 23, 0, tzinfo=UTC), date(2026, 1, 2)),
    ],
)
def test_a_start_after_midnight_runs_what_was_missed_the_day_before(started: datetime, day: date) -> None:
    assert CLEAN_UP.last_due(started) == day


def test_three_is_local_time() -> None:
    instant = datetime(2026, 1, 2, 2, 30, tzinfo=UTC)
    assert not CLEAN_UP.is_due(instant)
    assert CLEAN_UP.is_due(instant.astimezone(ZoneInfo("Europe/Berlin")))


@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 10, 25)])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/Helsinki"])
def test_a_day_on_which_clocks_change_has_its_run(zone: str, day: date) -> None:
    """Helsinki's clocks leave 03:00 out in March, and show it twice in October."""
    there = ZoneInfo(zone)
    midnight = datetime.combine(day, time(), there).astimezone(UTC)
    local = [(midnight + timedelta(minutes=n)).astimezone(there) for n in range(25 * 60)]
    due = [CLEAN_UP.is_due(moment) for moment in local if moment.date() == day]
    assert due.index(True) > 0
    assert all(due[due.index(True) :]), "once due, it stays due for the rest of the day"


@pytest.mark.parametrize(
    ("day", "comes"),
    [("2026-03-29", "2026-03-29T04:00:00+03:00"), ("2026-10-25", "2026-10-25T03:00:00+03:00")],
)
def test_the_next_run_on_such_a_day_is_at_a_time_that_there_is(day: str, comes: str) -> None:
    """Left out, it comes with the switch; shown twice, it comes the first time."""
    midnight = datetime.combine(date.fromisoformat(day), time(), ZoneInfo("Europe/Helsinki"))
    assert CLEAN_UP.next_after(midnight).isoformat() == comes

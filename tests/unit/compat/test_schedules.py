"""Schedules: what is due when, across changes of clocks too. Celery's own tests of the same run from outside."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.schedules import (
    ParseException,
    crontab,
    crontab_parser,
    maybe_schedule,
    moments,
    offset,
    round_down,
    schedule,
    solar,
    wall_clock,
)

NEW_YORK, HAVANA, LORD_HOWE = (ZoneInfo(name) for name in ("America/New_York", "America/Havana", "Australia/Lord_Howe"))


class ClockApp:
    """An app that has a clock, a zone and what beat is set to, and nothing else."""

    def __init__(self, zone: tzinfo = UTC, now: datetime | None = None, **conf: Any) -> None:
        self.timezone = zone
        self.time = now
        self.conf = SimpleNamespace(**{"enable_utc": True, "beat_cron_starting_deadline": None, **conf})

    def now(self) -> datetime:
        assert self.time is not None
        return self.time


def next_local(due: crontab | schedule, *local: int, fold: int = 0) -> str:
    """The time at which it is due after a run at a local time, in local time."""
    moment = datetime(*local, fold=fold, tzinfo=due.tz)  # type: ignore[arg-type,misc]
    return due.next_after(moment.astimezone(UTC)).astimezone(due.tz).isoformat(timespec="minutes")


# --- clocks change


@pytest.mark.parametrize(
    ("fields", "local", "due"),
    [
        ({"minute": 30, "hour": 2}, (2026, 3, 7, 12), "2026-03-08T03:00-04:00"),
        ({"minute": "*/20", "hour": 2}, (2026, 3, 8, 1), "2026-03-08T03:00-04:00"),
        ({"minute": "*/20"}, (2026, 3, 8, 1, 40), "2026-03-08T03:00-04:00"),
    ],
)
def test_a_time_that_clocks_skip_is_due_when_they_do(fields: Any, local: Any, due: str) -> None:
    assert next_local(crontab(**fields, app=ClockApp(NEW_YORK)), *local) == due


def test_what_was_due_while_clocks_were_put_forward_is_due_once() -> None:
    at = crontab(minute="*/20", hour=2, app=ClockApp(NEW_YORK))
    assert next_local(at, 2026, 3, 8, 3) == "2026-03-09T02:00-04:00"


def test_a_midnight_that_clocks_skip_is_due_at_one() -> None:
    assert next_local(crontab(minute=0, hour=0, app=ClockApp(HAVANA)), 2026, 3, 7, 12) == "2026-03-08T01:00-04:00"


def test_a_time_that_clocks_show_twice_is_due_once() -> None:
    at = crontab(minute=30, hour=1, app=ClockApp(NEW_YORK))
    assert next_local(at, 2026, 10, 31, 12) == "2026-11-01T01:30-04:00"
    assert next_local(at, 2026, 11, 1, 1, 30) == "2026-11-02T01:30-05:00"
    assert next_local(at, 2026, 11, 1, 1, 15, fold=1) == "2026-11-02T01:30-05:00"


def test_every_hour_is_also_the_hour_that_clocks_show_again() -> None:
    at = crontab(minute=30, app=ClockApp(NEW_YORK))
    assert next_local(at, 2026, 11, 1, 1, 30) == "2026-11-01T01:30-05:00"
    assert next_local(at, 2026, 11, 1, 1, 45) == "2026-11-01T01:30-05:00"
    assert next_local(at, 2026, 11, 1, 1, 30, fold=1) == "2026-11-01T02:30-05:00"


def test_what_is_left_to_wait_is_time_that_passes() -> None:
    app = ClockApp(NEW_YORK, now=datetime(2026, 3, 7, 9, tzinfo=NEW_YORK))
    remaining = crontab(minute=0, hour=9, app=app).remaining_estimate(app.now())
    assert remaining == timedelta(hours=23)


@pytest.mark.parametrize(
    ("zone", "every", "local", "due"),
    [
        (NEW_YORK, timedelta(days=1), (2026, 3, 7, 23, 30), "2026-03-08T00:00-05:00"),
        (HAVANA, timedelta(days=1), (2026, 3, 7, 23, 30), "2026-03-08T01:00-04:00"),
        (LORD_HOWE, timedelta(hours=1), (2026, 10, 4, 1, 15), "2026-10-04T02:30+11:00"),
        (LORD_HOWE, timedelta(hours=1), (2026, 4, 5, 1), "2026-04-05T02:00+10:30"),
    ],
)
def test_a_relative_schedule_is_due_at_a_full_day_or_hour(
    zone: ZoneInfo, every: timedelta, local: Any, due: str
) -> None:
    assert next_local(schedule(every, relative=True, app=ClockApp(zone)), *local) == due


_MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2037, 1, 1), timezones=st.just(UTC))
_ZONES = st.sampled_from(
    [ZoneInfo(name) for name in ("America/New_York", "America/Goose_Bay", "Australia/Lord_Howe", "Pacific/Apia", "UTC")]
)


@given(_MOMENTS, _ZONES)
@settings(max_examples=150, deadline=None)
def test_a_moment_is_among_those_at_which_its_wall_clock_time_is_shown(moment: datetime, zone: ZoneInfo) -> None:
    assert moment in moments(wall_clock(moment, zone), zone)


@given(_MOMENTS, _ZONES, st.sampled_from([timedelta(hours=1), timedelta(minutes=1)]))
@settings(max_examples=150, deadline=None)
def test_rounding_down_finds_a_full_step_or_a_change_of_clocks(
    moment: datetime, zone: ZoneInfo, step: timedelta
) -> None:
    rounded = round_down(moment, step, zone)
    is_full = not (wall_clock(rounded, zone) - datetime.min) % step
    assert rounded <= moment
    assert is_full or offset(rounded, zone) != offset(rounded - timedelta(seconds=1), zone)
    assert round_down(rounded, step, zone) == rounded


# --- due or not


def test_one_that_is_late_is_due_and_the_next_comes_at_its_time() -> None:
    app = ClockApp(now=datetime(2026, 5, 4, 3, 10, tzinfo=UTC))
    daily = crontab(minute=0, hour=3, app=app)
    assert daily.is_due(datetime(2026, 5, 3, 3, tzinfo=UTC)) == (True, 23 * 3600 + 50 * 60)
    assert daily.is_due(datetime(2026, 5, 4, 3, tzinfo=UTC)) == (False, 23 * 3600 + 50 * 60)


@pytest.mark.parametrize(("deadline_s", "is_due"), [(600, True), (599, False), (None, True)])
def test_one_that_is_too_late_is_not_due_any_more(deadline_s: int | None, is_due: bool) -> None:
    app = ClockApp(now=datetime(2026, 5, 4, 3, 10, tzinfo=UTC), beat_cron_starting_deadline=deadline_s)
    assert crontab(minute=0, hour=3, app=app).is_due(datetime(2026, 5, 3, 3, tzinfo=UTC)).is_due is is_due


def test_times_without_a_zone_are_utc_or_local_as_the_app_says() -> None:
    moment = datetime(2026, 5, 4, 3)
    assert schedule(1, app=ClockApp(NEW_YORK)).to_utc(moment) == datetime(2026, 5, 4, 3, tzinfo=UTC)
    assert schedule(1, app=ClockApp(NEW_YORK, enable_utc=False)).to_utc(moment) == datetime(2026, 5, 4, 7, tzinfo=UTC)


def test_a_leap_day_on_a_sunday_is_found_across_the_year_2100() -> None:
    at = crontab(minute=0, hour=0, day_of_month=29, month_of_year=2, day_of_week="sun", app=ClockApp())
    assert datetime(2088, 2, 29).isoweekday() == datetime(2128, 2, 29).isoweekday() == 7
    assert next_local(at, 2088, 3, 1) == "2128-02-29T00:00+00:00"


# --- what may be said


@pytest.mark.parametrize(
    ("size", "spec", "values"),
    [
        ((60, 0), "*/20", {0, 20, 40}),
        ((60, 0), "50-10/10", {50, 0, 10}),
        ((60, 0), " 1, 2-3 ", {1, 2, 3}),
        ((7, 0), "fri-mon", {5, 6, 0, 1}),
        ((7, 0), "Tues,thursday", {2, 4}),
        ((12, 1), "sept-nov", {9, 10, 11}),
    ],
)
def test_a_field_names_values(size: tuple[int, int], spec: str, values: set[int]) -> None:
    assert crontab_parser(*size).parse(spec) == values


@pytest.mark.parametrize(
    "spec", ["", "1,,2", "*/", "*/0", "-5", "1-", "5/10", "*-3", "mon", "1 2", "61", "3-61", "a", "1.5"]
)
def test_a_field_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(ParseException):
        crontab_parser(60).parse(spec)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"day_of_month": 31, "month_of_year": "4,6"}, "never occurs"),
        ({"hour": []}, "never occurs"),
        ({"day_of_week": 7}, "7, which is not within 0-6"),
        ({"month_of_year": "mon"}, "'mon' is neither"),
        ({"day_of_week": "jan"}, "'jan' is neither"),
        ({"minute": ["1"]}, "has '1'"),
    ],
)
def test_a_crontab_that_cannot_be_is_refused(fields: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        crontab(**fields)


def test_a_line_of_a_crontab_is_read_in_its_order() -> None:
    assert crontab.from_string("0 3 29 feb sun") == crontab(0, 3, "sun", 29, 2)
    assert repr(crontab.from_string("0 3 * * mon")) == "<crontab: 0 3 * * mon (m/h/dM/MY/d)>"


def test_schedules_are_the_same_in_another_process() -> None:
    at = crontab(hour=3, nowfun=datetime.now, app=ClockApp())
    copy = pickle.loads(pickle.dumps(at))  # noqa: S301 (our own bytes)
    assert (copy, copy.nowfun) == (at, datetime.now)
    assert pickle.loads(pickle.dumps(schedule(10, relative=True))) == schedule(10)  # noqa: S301


def test_seconds_become_a_schedule_and_a_schedule_gets_the_app() -> None:
    app, at = ClockApp(), crontab()
    assert maybe_schedule(30, app=app) == schedule(timedelta(seconds=30)) != schedule(31)
    assert maybe_schedule(at, app=app) is at
    assert at.app is app


@pytest.mark.parametrize("every", ["30", float("nan"), float("inf"), None])
def test_an_interval_that_is_no_time_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match="run_every must be"):
        schedule(every)


def test_solar_is_refused_with_what_to_use() -> None:
    with pytest.raises(ImproperlyConfigured, match="use crontab"):
        solar("sunrise", 60, 30)

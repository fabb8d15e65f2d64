"""`crontab`: due when a clock shows what its fields name.

APScheduler's CronTrigger does not carry it: there a time that clocks skip is left out, one that they show twice runs
twice, and its import alone takes a quarter of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar

from dream.compat.schedules.base import BaseSchedule, ffwd, schedstate
from dream.compat.schedules.fields import FIELDS, expand
from dream.compat.schedules.wall_clock import change_of_clocks, moments, offset, wall_clock
from dream.errors import InvalidArguments

__all__ = ["crontab"]

_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
#: The longest wait for a date: 29 February on a given day of the week, across a year like 2100.
_LONGEST_WAIT = 41 * 366 * _DAY
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class crontab(BaseSchedule):  # noqa: N801 (Celery's name)
    """Due when a clock shows what all five fields name.

    Parameters:
      minute, hour, day_of_week, day_of_month, month_of_year: a number, numbers, or a text as in
        `dream.compat.schedules.fields`.
      nowfun, app: see `BaseSchedule`.

    Raises:
      ValueError: a field cannot be read or has a value that it may not have, or no date has all of them.
    """

    minute: set[int]
    hour: set[int]
    day_of_week: set[int]
    day_of_month: set[int]
    month_of_year: set[int]

    _expand_cronspec: ClassVar[Callable[..., set[int]]] = staticmethod(expand)

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        *,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, app)
        for name, spec in zip(FIELDS, (minute, hour, day_of_week, day_of_month, month_of_year), strict=True):
            kept = list(spec) if isinstance(spec, Iterable) and not isinstance(spec, str) else spec
            setattr(self, f"_orig_{name}", kept)
            setattr(self, name, expand(kept, *FIELDS[name]))
        dates = (day <= _DAYS_OF_MONTHS[month - 1] for day in self.day_of_month for month in self.month_of_year)
        if not (any(dates) and self.minute and self.hour and self.day_of_week):
            raise InvalidArguments(f"{self!r} never occurs")

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """A crontab's line: minute, hour, day of the month, month, day of the week.

        Raises:
          ValueError: see the class.
        """
        fields = crontab.split()
        if len(fields) != len(FIELDS):
            raise InvalidArguments(f"{crontab!r}: a crontab has {len(FIELDS)} fields, not {len(fields)}")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def next_after(self, moment: datetime) -> datetime:
        """When it is due after a run at the moment; both in UTC.

        Raises:
          RuntimeError: no date matches.
        """
        due = self._next_in_order(moment)
        if not self._every_hour or offset(due, self.tz) >= offset(moment, self.tz):
            return due
        # Clocks go back before that: among the hours that they show again there may be an earlier time.
        change = change_of_clocks(moment, due, self.tz)
        again = moments(self._first_wall(wall_clock(change, self.tz)), self.tz)[-1]
        return min(due, again)

    def _next_in_order(self, moment: datetime) -> datetime:
        wall = wall_clock(moment, self.tz)
        while True:
            wall = self._first_wall(wall)
            shown = moments(wall, self.tz)
            for due in shown if self._every_hour else shown[:1]:
                if due > moment:
                    return due
            wall += _MINUTE

    @property
    def _every_hour(self) -> bool:
        return len(self.hour) == FIELDS["hour"][0]

    def _first_wall(self, wall: datetime) -> datetime:
        """The first time, this one or one after it, that a clock shows and all fields name."""
        if wall != (full := wall.replace(second=0, microsecond=0)):
            wall = full + _MINUTE
        give_up = wall + _LONGEST_WAIT
        while wall < give_up:
            midnight = wall.replace(hour=0, minute=0)
            if wall.month not in self.month_of_year:
                wall = (midnight.replace(day=1) + 32 * _DAY).replace(day=1)
                continue
            if (found := self._first_on_day(wall)) is not None:
                return found
            wall = midnight + _DAY
        raise RuntimeError(f"{self!r} never occurs")

    def _first_on_day(self, wall: datetime) -> datetime | None:
        """The first such time from this one to midnight."""
        if wall.day not in self.day_of_month or wall.isoweekday() % 7 not in self.day_of_week:
            return None
        times = (wall.replace(hour=hour, minute=minute) for hour in sorted(self.hour) for minute in sorted(self.minute))
        return next((time for time in times if time >= wall), None)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time until it is due after that run; below zero where that has passed."""
        return self.next_after(self.to_utc(last_run_at)) - self.to_utc(self.now())

    def remaining_delta(self, last_run_at: datetime, ffwd: Callable[..., Any] = ffwd) -> tuple[datetime, Any, datetime]:
        """That run in the app's zone, the fields of the time at which it is due next, and now in the app's zone."""
        last_run_at, now = self.to_local(last_run_at), self.to_local(self.now())
        due = wall_clock(self.next_after(self.to_utc(last_run_at)), self.tz)
        fields = {name: getattr(due, name) for name in ("year", "month", "day", "hour", "minute")}
        return last_run_at, ffwd(**fields, second=0, microsecond=0), now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and in how many seconds to ask again.

        What is late by more than `beat_cron_starting_deadline` is due no more.
        """
        last_run, now = self.to_utc(last_run_at), self.to_utc(self.now())
        due = self.next_after(last_run)
        if due > now:
            return schedstate(False, (due - now).total_seconds())
        deadline_s = self.app.conf.beat_cron_starting_deadline
        if deadline_s is not None:
            oldest = now - timedelta(seconds=deadline_s)
            due = self.next_after(max(last_run, oldest - _MICROSECOND))
        return schedstate(due <= now, (self.next_after(now) - now).total_seconds())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        minute, hour, day_of_week, day_of_month, month = (getattr(self, f"_orig_{name}") for name in FIELDS)
        return f"<crontab: {minute} {hour} {day_of_month} {month} {day_of_week} (m/h/dM/MY/d)>"

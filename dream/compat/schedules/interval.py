"""`schedule`: due again and again, after an interval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from dream.compat.schedules.base import BaseSchedule, schedstate
from dream.compat.schedules.wall_clock import moments, round_down, wall_clock
from dream.errors import InvalidArguments

__all__ = ["schedule"]

_DAY = timedelta(days=1)
_ROUNDED_TO = (timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))


class schedule(BaseSchedule):  # noqa: N801 (Celery's name)
    """Due again and again, after an interval.

    Parameters:
      run_every: seconds, or a timedelta; below zero counts as zero.
      relative: due when a clock shows a full day, hour, minute or second, whichever is the largest in the interval.
      nowfun, app: see `BaseSchedule`.

    Raises:
      ValueError: the interval is no time.
    """

    def __init__(
        self,
        run_every: float | timedelta,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, app)
        self.run_every = _interval(run_every)
        self.relative = relative

    @property
    def seconds(self) -> float:
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        return str(self.run_every)

    def next_after(self, moment: datetime) -> datetime:
        if self.relative and self.run_every >= _DAY:
            return self._next_day(moment)
        step = next((step for step in _ROUNDED_TO if self.run_every >= step), None)
        if not self.relative or step is None:
            return moment + timedelta(seconds=self.seconds)
        rounded = (round_down(moment + self.run_every + n * step, step, self.tz) for n in count())
        return next(full for full in rounded if full > moment)

    def _next_day(self, moment: datetime) -> datetime:
        day = (wall_clock(moment, self.tz) + self.run_every).replace(hour=0, minute=0, second=0, microsecond=0)
        return next(begin for begin in moments(day, self.tz) if begin > moment)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time until it is due after that run; below zero where that has passed."""
        return self.next_after(self.to_utc(last_run_at)) - self.to_utc(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and in how many seconds to ask again."""
        remaining = self.remaining_estimate(last_run_at)
        if remaining > timedelta():
            return schedstate(False, remaining.total_seconds())
        now = self.to_utc(self.now())
        return schedstate(True, (self.next_after(now) - now).total_seconds())

    def __eq__(self, other: object) -> bool:
        return self.run_every == other.run_every if isinstance(other, schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.run_every)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"


def _interval(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArguments(f"run_every must be a timedelta or a number of seconds, not {value!r}") from None

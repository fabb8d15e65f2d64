"""What every schedule has: an app, its time and its zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from dream.compat.schedules.wall_clock import moments

__all__ = ["BaseSchedule", "ffwd", "schedstate", "zone_of"]


class schedstate(NamedTuple):  # noqa: N801 (Celery's name)
    """Whether a task is due, and in how many seconds to ask again."""

    is_due: bool
    next: float


class ffwd:  # noqa: N801 (Celery's name)
    """A time, field by field, as `dateutil.relativedelta` takes them."""

    def __init__(self, **fields: int) -> None:
        self.__dict__.update(fields)

    def _fields(self) -> dict[str, int]:
        return dict(vars(self))


def zone_of(zone: str | tzinfo) -> tzinfo:
    """A time zone, or the one of that name."""
    return ZoneInfo(zone) if isinstance(zone, str) else zone


class BaseSchedule:
    """When something is due; a schedule of your own has `is_due` and either of the two others.

    Parameters:
      nowfun: takes the place of the app's `now()`.
      app: gives the time and the time zone; the current app by default.
    """

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    @property
    def app(self) -> Any:
        if self._app is None:
            from dream.compat.current import get_current_app

            return get_current_app()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def tz(self) -> tzinfo:
        return zone_of(self.app.timezone)

    @property
    def utc_enabled(self) -> bool:
        return bool(self.app.conf.enable_utc)

    def now(self) -> datetime:
        """The time; without a zone where `nowfun` gives none."""
        now: datetime = (self.nowfun or self.app.now)()
        return now

    def maybe_make_aware(self, moment: datetime) -> datetime:
        """A time without a zone is in UTC, or in the app's zone where `enable_utc` is off."""
        if moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=UTC) if self.utc_enabled else moments(moment, self.tz)[0].astimezone(self.tz)

    def to_local(self, moment: datetime) -> datetime:
        """The moment in the app's zone."""
        return self.maybe_make_aware(moment).astimezone(self.tz)

    def to_utc(self, moment: datetime) -> datetime:
        return self.maybe_make_aware(moment).astimezone(UTC)

    def next_after(self, moment: datetime) -> datetime:
        """When it is due after a run at the moment; both in UTC."""
        return self.to_utc(self.now()) + self.remaining_estimate(moment)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time until it is due after that run; below zero where that has passed."""
        raise NotImplementedError(f"{type(self).__name__} says neither remaining_estimate nor next_after")

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and in how many seconds to ask again."""
        raise NotImplementedError(f"{type(self).__name__} does not say is_due")

    def __getstate__(self) -> dict[str, Any]:
        # An app stays in its process.
        return {**vars(self), "_app": None}

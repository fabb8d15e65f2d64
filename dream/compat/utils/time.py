"""Celery's `celery.utils.time`: the names that callers import."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from dream.compat.app.retrying import backoff_s
from dream.compat.schedules import zone_of

__all__ = [
    "get_exponential_backoff_interval",
    "humanize_seconds",
    "is_naive",
    "localize",
    "make_aware",
    "maybe_iso8601",
    "maybe_make_aware",
    "maybe_timedelta",
    "rate",
    "to_utc",
    "weekday",
]

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PER_SECOND = {"s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def maybe_timedelta(delta: float | timedelta | Any) -> Any:
    """Seconds as a `timedelta`; anything else as it is."""
    return timedelta(seconds=delta) if isinstance(delta, int | float) else delta


def weekday(name: str) -> int:
    """The number of a day of the week by its English name, or its first three letters; Sunday is 0.

    Raises:
      KeyError: there is no such day.
    """
    short = name[:3].lower()
    if short not in _DAYS:
        raise KeyError(name)
    return _DAYS.index(short)


def rate(r: str | float | None) -> float:
    """Tasks a second that a rate such as `"10/m"` allows; 0 if there is none."""
    if not r:
        return 0.0
    if not isinstance(r, str):
        return float(r)
    count, _, unit = r.partition("/")
    return float(count) / _PER_SECOND[unit or "s"]


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """Seconds as a text for people, in their largest unit: `in 3.50 minutes`.

    Parameters:
      prefix, sep: before it.
      now: the text for 0.
      microseconds: show fractions of a second.
    """
    secs = round(float(secs), 2)
    for length_s, unit in _UNITS:
        if secs >= length_s:
            number = secs / length_s
            return f"{prefix}{sep}{number:.2f} {unit}{'s' if number != 1 else ''}"
    return f"{prefix}{sep}{secs:.2f} seconds" if microseconds and secs > 0 else now


def maybe_iso8601(dt: str | datetime | None) -> datetime | None:
    """Parse a time in ISO 8601; a `datetime`, or None, is returned as it is."""
    if not dt:
        return None
    return dt if isinstance(dt, datetime) else datetime.fromisoformat(dt)


def is_naive(dt: datetime) -> bool:
    """Whether a time has no zone."""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """The time with that zone, its clock time unchanged."""
    return dt.replace(tzinfo=tz)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Convert a time to that zone; a time without a zone is in it already."""
    return make_aware(dt, tz) if is_naive(dt) else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """Convert a time to UTC; a time without a zone is in UTC already."""
    return localize(dt, UTC)


def maybe_make_aware(dt: Any, tz: tzinfo | str | None = None, naive_as_utc: bool = True) -> Any:
    """A time without a zone in that zone, by default UTC; anything else as it is.

    Parameters:
      naive_as_utc: the time is in UTC and is converted; False: it is in that zone already.
    """
    if not isinstance(dt, datetime) or not is_naive(dt):
        return dt
    return localize(to_utc(dt) if naive_as_utc else dt, UTC if tz is None else zone_of(tz))


def get_exponential_backoff_interval(factor: int, retries: int, maximum: int, full_jitter: bool = False) -> int:
    """Seconds before a retry: factor × 2ⁿ, at most the maximum; with jitter anything from 0 up to that."""
    return backoff_s(factor, retries, maximum, full_jitter)

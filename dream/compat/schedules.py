"""Schedules of periodic tasks: `schedule(seconds)` and `crontab(…)`, as Celery writes them.

A wait is measured in real time, even if clocks change in between:

    forward   01:00   01:30 │ 03:00   03:30     02:30 is skipped: a crontab's 02:30 is due at the change
    back      01:00   01:30 │ 01:00   01:30     01:30 is shown twice: a crontab's 01:30 is due once, the first time
                         change

Only a crontab whose hour is `*` is due again in the repeated hour.

| field of a crontab | numbers | names |
| --- | --- | --- |
| minute | 0–59 | |
| hour | 0–23 | |
| day of the week | 0–6, Sunday is 0 | `sun` … `saturday`, any three letters or more |
| day of the month | 1–31 | |
| month of the year | 1–12 | `jan` … `december`, likewise |

    field = part ["," part …]      part = value | ("*" | value "-" value) ["/" step]

A range may wrap: `fri-mon` is Friday to Monday.

APScheduler's CronTrigger does not serve here: it leaves out a time that clocks skip and runs a repeated one twice, and
its import alone takes a quarter of a second.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any, ClassVar, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

from dream.compat import current
from dream.compat.exceptions import ImproperlyConfigured
from dream.errors import InvalidArguments

__all__ = [
    "BaseSchedule",
    "ParseException",
    "crontab",
    "crontab_parser",
    "ffwd",
    "maybe_schedule",
    "moments",
    "offset",
    "round_down",
    "schedstate",
    "schedule",
    "solar",
    "wall_clock",
    "zone_of",
]

_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)


class schedstate(NamedTuple):  # noqa: N801 (Celery's name)
    """Whether a task is due, and the seconds until the next call."""

    is_due: bool
    next: float


class ffwd:  # noqa: N801 (Celery's name)
    """A time, field by field, as `dateutil.relativedelta` takes them."""

    def __init__(self, **fields: int) -> None:
        self.__dict__.update(fields)

    def _fields(self) -> dict[str, int]:
        return dict(vars(self))


def zone_of(zone: str | tzinfo) -> tzinfo:
    """The time zone, which may be given by its name."""
    return ZoneInfo(zone) if isinstance(zone, str) else zone


class BaseSchedule:
    """The base of schedules. One of your own defines `is_due`, and `next_after` or `remaining_estimate`.

    Parameters:
      nowfun: gives the time in place of the app's `now()`.
      app: gives the time and the time zone; the current app by default.
    """

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    @property
    def app(self) -> Any:
        if self._app is None:
            return current.get_current_app()
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
        """The time; it has no zone if `nowfun` gives none."""
        now: datetime = (self.nowfun or self.app.now)()
        return now

    def maybe_make_aware(self, moment: datetime) -> datetime:
        """The time with a zone: UTC by default, or the app's zone if `enable_utc` is off."""
        if moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=UTC) if self.utc_enabled else moments(moment, self.tz)[0].astimezone(self.tz)

    def to_local(self, moment: datetime) -> datetime:
        """The moment in the app's zone."""
        return self.maybe_make_aware(moment).astimezone(self.tz)

    def to_utc(self, moment: datetime) -> datetime:
        return self.maybe_make_aware(moment).astimezone(UTC)

    def next_after(self, moment: datetime) -> datetime:
        """The next due time after a run at the moment; both in UTC."""
        return self.to_utc(self.now()) + self.remaining_estimate(moment)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """The time until it is due after that run; negative if that time has passed."""
        raise NotImplementedError(f"{type(self).__name__} defines neither remaining_estimate nor next_after")

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and the seconds until the next call."""
        raise NotImplementedError(f"{type(self).__name__} does not define is_due")

    def __getstate__(self) -> dict[str, Any]:
        # An app is not pickled: it stays in its process.
        return {**vars(self), "_app": None}


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
        """The time until it is due after that run; negative if that time has passed."""
        return self.next_after(self.to_utc(last_run_at)) - self.to_utc(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and the seconds until the next call."""
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


# --- the fields of a crontab


#: Each field: the number of its values, and the first of them.
FIELDS = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_week": (7, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
}
_WEEKDAYS = {name.lower(): (number + 1) % 7 for number, name in enumerate(calendar.day_name)}
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_SHORTEST_NAME = 3
_NAMES = {FIELDS["day_of_week"]: _WEEKDAYS, FIELDS["month_of_year"]: _MONTHS}
_PART = re.compile(r"(?P<value>\w+)|(?:\*|(?P<first>\w+)-(?P<last>\w+))(?:/(?P<step>\d+))?")


class ParseException(InvalidArguments):
    """A crontab's field cannot be read."""


class crontab_parser:  # noqa: N801 (Celery's name)
    """Reads one field.

    Parameters:
      max_: the number of its values.
      min_: the first of them.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.min_ = min_
        self.max_ = min_ + max_ - 1
        self._names = _NAMES.get((max_, min_), {})

    def parse(self, spec: str) -> set[int]:
        """The values that a field names.

        Raises:
          ParseException: it cannot be read.
          ValueError: a value is unknown or out of range; it may be a ParseException.
        """
        return {value for part in spec.split(",") for value in self._part(part.strip(), spec)}

    def _part(self, part: str, spec: str) -> list[int]:
        found = _PART.fullmatch(part)
        if found is None:
            raise ParseException(f"{spec!r}: {part!r} is neither a value, a range as in 1-5, nor a step as in */15")
        if found["value"]:
            return [self._value(found["value"])]
        first, last = found["first"] or str(self.min_), found["last"] or str(self.max_)
        values = self._range(self._value(first), self._value(last))
        return self._range_steps([values, found["step"] or 1])

    def _range(self, first: int, last: int) -> list[int]:
        if first <= last:
            return list(range(first, last + 1))
        return [*range(first, self.max_ + 1), *range(self.min_, last + 1)]

    def _range_steps(self, range_and_step: Iterable[Any]) -> list[int]:
        """Every n-th value of a range; Celery passes the values and n as one list."""
        values, *steps = range_and_step
        if len(steps) != 1 or int(steps[0]) < 1:
            raise ParseException("a step is a number from 1 on, as in */15")
        return list(values[:: int(steps[0])])

    def _value(self, text: str) -> int:
        number = int(text) if text.isdecimal() else self._number_of(text.lower())
        if not self.min_ <= number <= self.max_:
            raise ParseException(f"{text} is not within {self.min_}-{self.max_}")
        return number

    def _number_of(self, name: str) -> int:
        for full_name, number in self._names.items():
            if len(name) >= _SHORTEST_NAME and full_name.startswith(name):
                return number
        raise ParseException(f"{name!r} is neither a number nor a name that this field knows")


def expand(spec: Any, max_: int, min_: int = 0) -> set[int]:
    """The values that a field's specification names: a number, a text, or numbers.

    Parameters:
      max_: the number of the field's values.
      min_: the first of them.

    Raises:
      TypeError: it is none of these.
      ValueError: a value is unknown or out of range.
    """
    if isinstance(spec, int):
        values = {spec}
    elif isinstance(spec, str):
        values = crontab_parser(max_, min_).parse(spec)
    elif isinstance(spec, Iterable):
        values = set(spec)
    else:
        raise TypeError(f"a crontab's field is a number, a text or numbers, not {type(spec).__name__}")
    for value in values:
        if not isinstance(value, int) or not min_ <= value < min_ + max_:
            raise InvalidArguments(f"a crontab's field has {value!r}, which is not within {min_}-{min_ + max_ - 1}")
    return values


#: The longest wait for a date: 29 February on a given day of the week, across a year like 2100.
_LONGEST_WAIT = 41 * 366 * _DAY
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class crontab(BaseSchedule):  # noqa: N801 (Celery's name)
    """Due when a wall clock matches all five fields.

    Parameters:
      minute, hour, day_of_week, day_of_month, month_of_year: a number, numbers, or a text as in the table
        above.
      nowfun, app: see `BaseSchedule`.

    Raises:
      ValueError: a field cannot be read or has a value out of range, or no date matches all fields.
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
        """The crontab of a line: minute, hour, day of the month, month, day of the week.

        Raises:
          ValueError: see the class.
        """
        fields = crontab.split()
        if len(fields) != len(FIELDS):
            raise InvalidArguments(f"{crontab!r}: a crontab has {len(FIELDS)} fields, not {len(fields)}")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def next_after(self, moment: datetime) -> datetime:
        """The next due time after a run at the moment; both in UTC.

        Raises:
          RuntimeError: no date matches.
        """
        due = self._next_in_order(moment)
        if not self._every_hour or offset(due, self.tz) >= offset(moment, self.tz):
            return due
        # Clocks go back before that, so one of the repeated hours may match earlier.
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
        """The first time from this one on that matches all fields."""
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
        """The first matching time from this one to midnight."""
        if wall.day not in self.day_of_month or wall.isoweekday() % 7 not in self.day_of_week:
            return None
        times = (wall.replace(hour=hour, minute=minute) for hour in sorted(self.hour) for minute in sorted(self.minute))
        return next((time for time in times if time >= wall), None)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """The time until it is due after that run; negative if that time has passed."""
        return self.next_after(self.to_utc(last_run_at)) - self.to_utc(self.now())

    def remaining_delta(self, last_run_at: datetime, ffwd: Callable[..., Any] = ffwd) -> tuple[datetime, Any, datetime]:
        """That run in the app's zone, the fields of the next due time, and now in the app's zone."""
        last_run_at, now = self.to_local(last_run_at), self.to_local(self.now())
        due = wall_clock(self.next_after(self.to_utc(last_run_at)), self.tz)
        fields = {name: getattr(due, name) for name in ("year", "month", "day", "hour", "minute")}
        return last_run_at, ffwd(**fields, second=0, microsecond=0), now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due after that run, and the seconds until the next call.

        A time that is late by more than `beat_cron_starting_deadline` is dropped.
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


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """The schedule of a beat entry, which may be seconds, a timedelta or a schedule. A schedule gets the app."""
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    if isinstance(s, BaseSchedule):
        s.app = app
    return s


def solar(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Refused: dream does not follow the sun.

    Raises:
      ImproperlyConfigured
    """
    raise ImproperlyConfigured("solar schedules are refused, and so is celery[solar] with ephem: use crontab")


# --- the times of a wall clock
#
# Moments are aware and in UTC, walls are naive. Only a zone's way from UTC to local time is used, because every kind of
# `tzinfo` gets it right; the way back is ambiguous.


def wall_clock(moment: datetime, zone: tzinfo) -> datetime:
    """The time that a wall clock in the zone shows at the moment, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def offset(moment: datetime, zone: tzinfo) -> timedelta:
    """The lead of local time over UTC at the moment."""
    return wall_clock(moment, zone) - moment.replace(tzinfo=None)


def moments(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """The one or two moments at which the clock shows the time; if clocks skip it, the moment of their change."""
    near = wall.replace(tzinfo=UTC)
    # A day is enough on each side: local time is within 14 h of UTC.
    offsets = {offset(near - _DAY, zone), offset(near + _DAY, zone)}
    shown = sorted(near - each for each in offsets if wall_clock(near - each, zone) == wall)
    return tuple(shown) or (change_of_clocks(near - max(offsets), near - min(offsets), zone),)


def change_of_clocks(after: datetime, until: datetime, zone: tzinfo) -> datetime:
    """A moment in (after, until] at which clocks change; the two offsets must differ."""
    before, low, high = offset(after, zone), 0, (until - after) // _MICROSECOND
    while high - low > 1:
        middle = (low + high) // 2
        if offset(after + middle * _MICROSECOND, zone) == before:
            low = middle
        else:
            high = middle
    return after + high * _MICROSECOND


def round_down(moment: datetime, step: timedelta, zone: tzinfo) -> datetime:
    """The last moment up to this one at which the clock shows a full `step`: an hour, a minute or a second.

    If clocks skip that time, the moment of their change counts.
    """
    wall = wall_clock(moment, zone)
    full = wall - (wall - datetime.min) % step
    begin = moment - (wall - full)
    if wall_clock(begin, zone) == full:
        return begin
    change = change_of_clocks(begin, moment, zone)
    just_before = change - _MICROSECOND
    if wall_clock(just_before, zone) < full <= wall_clock(change, zone):
        return change
    return round_down(just_before, step, zone)

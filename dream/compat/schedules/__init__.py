"""When periodic tasks run: `schedule(seconds)` and `crontab(…)`, as Celery writes them down.

What is left to wait is always time that passes, whatever clocks do in between: a crontab's time that clocks skip is
due at their change, and one that they show twice is due once. Only where the hour is `*` do repeated hours count.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.schedules.base import BaseSchedule, ffwd, schedstate
from dream.compat.schedules.crontab import crontab
from dream.compat.schedules.fields import ParseException, crontab_parser
from dream.compat.schedules.interval import schedule

__all__ = [
    "BaseSchedule",
    "ParseException",
    "crontab",
    "crontab_parser",
    "ffwd",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
]


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """A schedule of what a beat entry gives: seconds, a timedelta, or a schedule, which gets the app."""
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative, app=app)
    if isinstance(s, BaseSchedule):
        s.app = app
    return s


def solar(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Refused: where the sun stands is not followed.

    Raises:
      ImproperlyConfigured
    """
    raise ImproperlyConfigured("solar schedules are refused, and so is celery[solar] with ephem: use crontab")

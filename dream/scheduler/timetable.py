"""The timetable, as data.

A daily task's id is `<name>:<date>`: however many schedulers run, start or stop around its time, it runs once a date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from dream.messages import CLEANUP_TOKENS

__all__ = ["NIGHTLY_AT", "TIMETABLE", "Daily"]

#: When leftovers are removed: after the clean-up, when little else happens.
NIGHTLY_AT = time(3, 30)


@dataclass(frozen=True)
class Daily:
    """A task that runs every day.

    Parameters:
      name: of the entry, as the documentation lists it.
      task: name of the task, which takes no arguments.
      at: local time in `DREAM_TIMEZONE`.
    """

    name: str
    task: str
    at: time

    def task_id(self, day: date) -> str:
        """The id of that date's run."""
        return f"{self.name}:{day.isoformat()}"

    def next_after(self, local_now: datetime) -> datetime:
        """When it runs next, in the zone of `local_now`; a time that a switch of clocks leaves out comes with it."""
        today = local_now.date()
        day = today + timedelta(days=1) if self.is_due(local_now) else today
        return datetime.combine(day, self.at, tzinfo=local_now.tzinfo).astimezone(UTC).astimezone(local_now.tzinfo)

    def is_due(self, local_now: datetime) -> bool:
        """Whether today's run should have been by now."""
        return local_now.time() >= self.at

    def last_due(self, local_now: datetime) -> date:
        """The date of the newest run that should have been by now: yesterday's, before today's time has come."""
        today = local_now.date()
        return today if self.is_due(local_now) else today - timedelta(days=1)


TIMETABLE = (Daily("cleanup-expired-tokens", CLEANUP_TOKENS, time(3, 0)),)

"""Due times of dream's own daily tasks, from the times of day in the registry (`dream.messages.registry`).

A daily task's id is `<name>:<date>`: however many schedulers run, start or stop around its time, it runs once a date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from dream.messages.registry import REGISTRY

__all__ = ["NIGHTLY_AT", "TIMETABLE", "Daily"]

#: The time of the removal of orphans: after the clean-up, when dream has little to do.
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
        """The id of the run on that date."""
        return f"{self.name}:{day.isoformat()}"

    def next_after(self, local_now: datetime) -> datetime:
        """Its next run, in the zone of `local_now`. If a change of clocks skips the time, the run is at the change."""
        today = local_now.date()
        day = today + timedelta(days=1) if self.is_due(local_now) else today
        return datetime.combine(day, self.at, tzinfo=local_now.tzinfo).astimezone(UTC).astimezone(local_now.tzinfo)

    def is_due(self, local_now: datetime) -> bool:
        """Whether today's run is due."""
        return local_now.time() >= self.at

    def last_due(self, local_now: datetime) -> date:
        """The date of the newest due run: today, or yesterday before today's time."""
        today = local_now.date()
        return today if self.is_due(local_now) else today - timedelta(days=1)


#: The tasks of the registry that run every day.
TIMETABLE = tuple(Daily(kind.entry, kind.name, kind.at) for kind in REGISTRY if kind.entry and kind.at)

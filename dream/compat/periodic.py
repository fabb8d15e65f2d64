"""The entries of an app's `beat_schedule`, in the form that the scheduler expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dream.compat.envelope import PERIODIC
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.host import host
from dream.compat.schedules import BaseSchedule, maybe_schedule
from dream.work.results import PENDING

if TYPE_CHECKING:
    from dream.compat.app import Celery

__all__ = ["PeriodicTask", "entry_of", "periodic_tasks"]

_FIELDS = frozenset({"args", "kwargs", "options", "relative", "schedule", "task"})


@dataclass(frozen=True)
class PeriodicTask:
    """One entry.

    Parameters:
      app: its app.
      name: its name.
      task: full name of the task.
      schedule: gives the due times.
      args, kwargs, options: as for `apply_async`.
    """

    app: Celery
    name: str
    task: str
    schedule: BaseSchedule
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    def is_due(self, counted_from: datetime) -> tuple[bool, float]:
        """Whether the run after that time is due, and the seconds until the next call."""
        return self.schedule.is_due(counted_from)

    def due_at(self, counted_from: datetime, now: datetime) -> datetime:
        """The time from which the next run is counted: this run's due time, or now if more than one run was missed."""
        due = self.schedule.next_after(counted_from)
        return due if due <= now < self.schedule.next_after(due) else now

    def send(self, task_id: str) -> None:
        """Send a run, as `apply_async` does. A broker that knows the delivery ignores a repetition."""
        options = {**self.options, "task_id": task_id}
        if self.task not in host().tasks:
            options["headers"] = {**options.get("headers", {}), PERIODIC: self.name}
        self.app.send_task(self.task, self.args, self.kwargs, **options)

    def is_known(self, task_id: str) -> bool:
        """Whether a run has begun, as far as its result is stored."""
        return self.app.AsyncResult(task_id).state != PENDING


def periodic_tasks(app: Celery) -> list[PeriodicTask]:
    """The entries that the scheduler runs beside the host's timetable.

    Raises:
      ImproperlyConfigured: an entry is wrong; the message names it.
    """
    ours = {name: (entry["task"], entry["schedule"]) for name, entry in host().timetable().items()}
    found = []
    for name, entry in app.conf.beat_schedule.items():
        task = _periodic_task(app, str(name), entry)
        if (task.task, task.schedule) == ours.get(name):
            continue
        if name in ours:
            raise ImproperlyConfigured(f"beat_schedule: {name!r} is in dream's own timetable; use another name")
        found.append(task)
    return found


def _periodic_task(app: Celery, name: str, entry: Any) -> PeriodicTask:
    if not isinstance(entry, Mapping) or not {"task", "schedule"} <= entry.keys():
        raise ImproperlyConfigured(f"beat_schedule: {name!r} must be a mapping with task and schedule, not {entry!r}")
    for field in entry.keys() - _FIELDS:
        raise ImproperlyConfigured(f"beat_schedule: {name!r} has the unknown field {field!r}")
    schedule = maybe_schedule(entry["schedule"], entry.get("relative", False), app=app)
    if not isinstance(schedule, BaseSchedule):
        raise ImproperlyConfigured(f"beat_schedule: {name!r} has {schedule!r}, which is no schedule of dream.compat")
    return PeriodicTask(
        app,
        name,
        entry["task"],
        schedule,
        entry.get("args") or (),
        entry.get("kwargs") or {},
        entry.get("options") or {},
    )


def entry_of(schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, options: Any) -> tuple[str, Any]:
    """The name and the entry that `add_periodic_task` adds.

    Parameters:
      schedule: seconds, a timedelta or a schedule.
      sig: a task or its signature.
      args, kwargs, options: args follow those of the signature; kwargs and options replace those of the same name.
      name: the name of the entry; by default the text of a call of the task.
    """
    task = getattr(sig, "task", None) or sig.name
    all_args = (*(getattr(sig, "args", None) or ()), *(args or ()))
    all_kwargs = {**(getattr(sig, "kwargs", None) or {}), **(kwargs or {})}
    all_options = {**(getattr(sig, "options", None) or {}), **(options or {})}
    shown = ", ".join([*map(repr, all_args), *(f"{key}={value!r}" for key, value in all_kwargs.items())])
    entry = {"schedule": schedule, "task": task, "args": all_args, "kwargs": all_kwargs, "options": all_options}
    return name or f"{task}({shown})", entry

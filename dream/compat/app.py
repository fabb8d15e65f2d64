"""The Celery-compatible app: a registry of tasks by name, and what its configuration shows."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from dream.compat.exceptions import NotRegistered
from dream.compat.result import AsyncResult
from dream.compat.schedules import crontab
from dream.compat.task import Task, check_definition
from dream.errors import InvalidArguments
from dream.messages import DEFAULT_QUEUE, QUEUES

__all__ = ["Celery", "Conf", "Registry"]


class Registry(UserDict[str, Task]):
    """Tasks by name, older names included."""

    def __missing__(self, name: str) -> Task:
        raise NotRegistered(f"no task is called {name!r}")


class Conf:
    """What the app is set to. It is read only: `DREAM_…` variables set what can be set."""

    task_default_queue = DEFAULT_QUEUE
    task_queues = QUEUES
    task_serializer = "json"
    enable_utc = True

    @property
    def timezone(self) -> str:
        from dream.settings import load

        return load().timezone

    @property
    def beat_schedule(self) -> dict[str, dict[str, Any]]:
        """The timetable, as Celery would show it."""
        from dream.scheduler.timetable import TIMETABLE

        return {
            entry.name: {"task": entry.task, "schedule": crontab(minute=entry.at.minute, hour=entry.at.hour)}
            for entry in TIMETABLE
        }


class Celery:
    """An app.

    Parameters:
      main: its name; tasks of a script that is run as `__main__` are named after it.
      **options: Celery's; all of them are refused by name, for `DREAM_…` variables set what can be set.
    """

    def __init__(self, main: str | None = None, **options: Any) -> None:
        for name, value in options.items():
            if value is not None:
                raise InvalidArguments(f"Celery(…, {name}=) is not supported: DREAM_… variables set what can be set")
        self.main = main
        self.tasks = Registry()
        self.conf = Conf()

    @overload
    def task(self, function: Callable[..., Any], /) -> Task: ...
    @overload
    def task(self, /, *, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Task]: ...

    def task(
        self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any
    ) -> Task | Callable[[Callable[..., Any]], Task]:
        """Make a function a task of this app: `@app.task` or `@app.task(name=…)`.

        Raises:
          InvalidArguments: an option has no meaning here.
        """

        def define(function: Callable[..., Any]) -> Task:
            full_name = name or self.gen_task_name(function.__name__, function.__module__)
            check_definition(full_name, options)
            return self.tasks.get(full_name) or self.register_task(Task(self, full_name, function))

        return define if function is None else define(function)

    def gen_task_name(self, name: str, module: str) -> str:
        """The full name of a function's task."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def register_task(self, task: Task) -> Task:
        """Add a task under its name."""
        self.tasks[task.name] = task
        return task

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Send a task by its name, an older one perhaps.

        Parameters:
          name: full name.
          args, kwargs, **options: as for `Task.apply_async`.

        Raises:
          NotRegistered: workers do not know the task.
        """
        return self.tasks[name].apply_async(args, kwargs, **options)

    def AsyncResult(self, id: str) -> AsyncResult:  # noqa: A002, N802 (Celery's names)
        """The result of a task of any app."""
        return AsyncResult(id, self)

    def __repr__(self) -> str:
        return f"<Celery {self.main}>"

"""The tasks of an app by name (`app.tasks`), and tasks that every app shares: `@shared_task`."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dream.compat import current
from dream.compat.app.task import Task
from dream.compat.exceptions import NotRegistered
from dream.compat.local import Proxy

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = [
    "TaskRegistry",
    "shared_task",
]


class TaskRegistry(UserDict[str, Task]):
    """Tasks by name, older names included. Shared tasks are added when they are asked for.

    Parameters:
      app: the app of the tasks.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        super().__init__()

    def __missing__(self, name: str) -> Task:
        if name in current.SHARED:
            return current.SHARED[name](self._app)
        raise NotRegistered(f"no task is called {name!r}")

    def register(self, task: Any) -> None:
        """Add a task; see the app's `register_task`."""
        self._app.register_task(task)

    def unregister(self, task: Any) -> None:
        """Remove a task, which may be given by its name.

        Raises:
          NotRegistered: there is none.
        """
        name = getattr(task, "name", task)
        if self.data.pop(name, None) is None:
            raise NotRegistered(f"no task is called {name!r}")

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in current.SHARED


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a function a task of every app: `@shared_task`, `@shared_task(name=…)`. Calls use the current app's."""

    def define(function: Callable[..., Any]) -> Any:
        name = options.get("name") or f"{function.__module__}.{function.__name__}"

        def in_app(app: Celery) -> Task:
            task: Task = app.task(**{**options, "name": name})(function)
            return task

        current.SHARED[name] = in_app
        return Proxy(lambda: current.get_current_app().tasks[name], function.__name__)

    return define(args[0]) if args and callable(args[0]) else define

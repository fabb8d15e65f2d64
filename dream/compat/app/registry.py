"""Celery's `celery.app.registry`: an app's tasks by name, as `app.tasks`."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any

from dream.compat import current
from dream.compat.app.task import Task
from dream.compat.exceptions import NotRegistered

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = ["TaskRegistry"]


class TaskRegistry(UserDict[str, Task]):
    """Tasks by name, older names included; shared ones join when they are asked for.

    Parameters:
      app: whose they are.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        super().__init__()

    def __missing__(self, name: str) -> Task:
        if name in current.SHARED:
            return current.SHARED[name](self._app)
        raise NotRegistered(f"no task is called {name!r}")

    def register(self, task: Any) -> None:
        """As the app's `register_task`."""
        self._app.register_task(task)

    def unregister(self, task: Any) -> None:
        """Forget a task, or the one of that name.

        Raises:
          NotRegistered: there is none.
        """
        name = getattr(task, "name", task)
        if self.data.pop(name, None) is None:
            raise NotRegistered(f"no task is called {name!r}")

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in current.SHARED

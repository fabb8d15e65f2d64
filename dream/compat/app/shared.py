"""Tasks that belong to no app in particular: `@shared_task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dream.compat import current
from dream.compat.local import Proxy

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task

__all__ = ["shared_task"]


def shared_task(*args: Any, **options: Any) -> Any:
    """Make a function a task of every app, used as that of the current one: `@shared_task`, `@shared_task(name=…)`."""

    def define(function: Callable[..., Any]) -> Any:
        name = options.get("name") or f"{function.__module__}.{function.__name__}"

        def in_app(app: Celery) -> Task:
            task: Task = app.task(**{**options, "name": name})(function)
            return task

        current.SHARED[name] = in_app
        return Proxy(lambda: current.get_current_app().tasks[name], function.__name__)

    return define(args[0]) if args and callable(args[0]) else define

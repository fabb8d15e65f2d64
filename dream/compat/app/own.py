"""A task of ours as Celery's callers see it: it goes through the producer, which writes its row first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat import options as sending
from dream.compat.app.task import Task

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.result import AsyncResult, EagerResult

__all__ = ["OwnTask"]


class OwnTask(Task):
    """A task that workers know without being told.

    Parameters:
      app: the app that it belongs to.
      name: its full name, as messages carry it.
      function: what a call runs.
      accept: takes `(task_id, delivery, *arguments)` and hands the task to the workers.
    """

    def __init__(self, app: Celery, name: str, function: Callable[..., Any], accept: Callable[..., object]) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.run = function  # type: ignore[method-assign]
        self._accept = accept

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult | EagerResult:
        """Send it; with `task_always_eager` run it here and now.

        Parameters:
          args, kwargs: its arguments.
          task_id: the id to use; a new one by default.
          **options: see `dream.compat.options`.

        Raises:
          TypeError: the function does not take these arguments.
          InvalidArguments: an option, or an argument's value, is refused; nothing was stored.
        """
        self._check_arguments(args, kwargs)
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, task_id=task_id, **options)
        used_id, delivery = sending.parse(self.name, {**options, "task_id": task_id})
        arguments = inspect.signature(self.run).bind(*(args or ()), **(kwargs or {})).args
        self._accept(used_id, delivery, *arguments)
        return self.app.AsyncResult(used_id)

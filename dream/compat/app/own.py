"""A task of ours as Celery's callers see it: it goes through the producer, which writes its row first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat import options as sending
from dream.compat.app.task import Task
from dream.producer import default

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.result import AsyncResult, EagerResult
    from dream.producer import Order

__all__ = ["OwnTask"]


class OwnTask(Task):
    """A task that workers know without being told.

    Parameters:
      app: the app that it belongs to.
      name: its full name, as messages carry it.
      function: what a call runs.
      order: makes of `(task_id, delivery, *arguments)` what the producer accepts.
    """

    def __init__(self, app: Celery, name: str, function: Callable[..., Any], order: Callable[..., Order]) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.run = function  # type: ignore[method-assign]
        self._order = order

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
        if self.app.conf.task_always_eager:
            self._check_arguments(args, kwargs)
            return self.apply(args, kwargs, task_id=task_id, **options)
        order = self.order(args, kwargs, task_id, **options)
        default().accept(order)
        return self.app.AsyncResult(order.task_id)

    def order(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Order:
        """What the producer is to accept, with its bytes staged. Arguments and errors as of `apply_async`."""
        self._check_arguments(args, kwargs)
        used_id, delivery = sending.parse(self.name, {**options, "task_id": task_id})
        arguments = self._signature.bind(*(args or ()), **(kwargs or {})).args
        return self._order(used_id, delivery, *arguments)

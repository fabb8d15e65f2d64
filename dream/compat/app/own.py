"""A task of ours as Celery's callers see it: it goes through the producer, which writes its row first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.blocking import warn_on_loop
from dream.compat.app.own_options import parse
from dream.compat.app.task import Task

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.result import AsyncResult
    from dream.producer import Order, Producer

__all__ = ["OwnTask"]


class OwnTask(Task):
    """A task that workers know without being told.

    Parameters:
      app: the app that it belongs to.
      name: its full name, as messages carry it.
      function: what a call runs.
      order: makes the order that the producer accepts from `(producer, task_id, delivery, *arguments)`.
    """

    def __init__(self, app: Celery, name: str, function: Callable[..., Any], order: Callable[..., Order]) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.run = function  # type: ignore[method-assign]
        self._order = order

    def _send(self, args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any]) -> AsyncResult:
        return self.send_by(self.app, args, kwargs, {**options, "task_id": task_id})

    def send_by(self, app: Celery, args: Any, kwargs: Any, options: dict[str, Any]) -> AsyncResult:
        """Send it by the producer of an app.

        Raises:
          TypeError, InvalidArguments: as of `apply_async`.
        """
        order = self.order(args, kwargs, producer=app.producer, **options)
        app.producer.accept(order)
        return app.AsyncResult(order.task_id)

    def order(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        producer: Producer | None = None,
        **options: Any,
    ) -> Order:
        """The order for a producer to accept, with its bytes staged; `own_options` lists the options.

        Parameters:
          producer: the producer; by default that of the task's app.

        Raises:
          TypeError, InvalidArguments: as of `apply_async`; nothing was stored.
        """
        warn_on_loop(f"{self.name.rpartition('.')[2]}.delay")
        self._check_arguments(args, kwargs)
        used_id, delivery = parse(self.name, {**options, "task_id": task_id})
        arguments = self._signature_of_run.bind(*(args or ()), **(kwargs or {})).args
        return self._order(producer or self.app.producer, used_id, delivery, *arguments)

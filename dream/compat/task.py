"""A task: a function under a name, that runs here and now or is sent to a worker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat import options as sending
from dream.compat.exceptions import NotRegistered
from dream.compat.result import AsyncResult
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.producer import Delivery

    Accept = Callable[..., object]

__all__ = ["Task", "check_definition"]


class Task:
    """Called, it runs here and now; `delay` and `apply_async` send it.

    Parameters:
      app: the app that it belongs to.
      name: its full name, as messages carry it.
      function: what a call runs.
      accept: takes `(task_id, delivery, *arguments)` and hands the task to the workers; None where they do not know it.
    """

    def __init__(self, app: Celery, name: str, function: Callable[..., Any], accept: Accept | None = None) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.run = function
        self._accept = accept

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send it, without options.

        Raises:
          TypeError: the function does not take these arguments.
          NotRegistered: workers do not know the task.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send it.

        Parameters:
          args, kwargs: its arguments.
          task_id: the id to use; a new one by default.
          **options: see `dream.compat.options`.

        Raises:
          TypeError: the function does not take these arguments.
          InvalidArguments: an option, or an argument's value, is refused; nothing was stored.
          NotRegistered: workers do not know the task.
        """
        arguments = self._arguments(args, kwargs)
        used_id, delivery = sending.parse(self.name, {**options, "task_id": task_id})
        return self._send(used_id, delivery, arguments)

    def _arguments(self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[Any, ...]:
        if args is not None and (not isinstance(args, Sequence) or isinstance(args, str | bytes)):
            raise TypeError(f"{self.name}: args must be a list or a tuple, not {type(args).__name__}")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"{self.name}: kwargs must be a dict, not {type(kwargs).__name__}")
        try:
            return inspect.signature(self.run).bind(*(args or ()), **(kwargs or {})).args
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def _send(self, task_id: str, delivery: Delivery, arguments: tuple[Any, ...]) -> AsyncResult:
        if self._accept is None:
            raise NotRegistered(f"no worker knows {self.name}: it can be called, but not sent")
        self._accept(task_id, delivery, *arguments)
        return AsyncResult(task_id, app=self.app)

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"


def check_definition(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option of a task's definition that has no meaning here.

    `ignore_result` and `acks_late=True` are how it is anyway; `bind=False` is the default.

    Raises:
      InvalidArguments
    """
    harmless = {"ignore_result": (True, False), "acks_late": (True,), "bind": (False,)}
    for option, value in options.items():
        if value is not None and value not in harmless.get(option, ()):
            raise InvalidArguments(f"{name}: the task option {option}={value!r} is not supported")

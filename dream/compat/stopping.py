"""Distinguishes interrupts that end a run from outside from errors of the task's own code, such as an exit."""

from __future__ import annotations

import sys

from dream.compat.states import FAILURE

__all__ = ["Stopped", "is_callers", "is_in_worker", "stop_behind"]


class Stopped(BaseException):
    """Raised in a run's thread to end it, whatever the task catches; subclasses say how it ends."""

    state: str = FAILURE
    error: BaseException


def is_callers(error: BaseException) -> bool:
    """Whether an error is only a failure of the code that raised it.

    In a worker's thread every error is, except a `Stopped` and Dramatiq's interrupts: signals of the process, Ctrl-C
    included, reach its main thread alone. In other processes an error that is no `Exception` is for the process.
    """
    if isinstance(error, Exception):
        return True
    if not is_in_worker():
        return False
    from dramatiq.middleware import Interrupt

    return not isinstance(error, Stopped | Interrupt)


def stop_behind(error: BaseException | None) -> Stopped | None:
    """The `Stopped` that an error is, or that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Stopped):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def is_in_worker() -> bool:
    """Whether Dramatiq runs something in this thread; a process that has not loaded its middleware runs nothing."""
    module = sys.modules.get("dramatiq.middleware.current_message")
    return module is not None and module.CurrentMessage.get_current_message() is not None

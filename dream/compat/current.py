"""The current app, the task that runs in this thread, and the tasks that all apps share.

The current app is the last one that was made, or that `set_current` named; without one, it is the
host's (`dream.compat.host`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dream.compat.host import host
from dream.compat.local import Proxy
from dream.errors import DreamError
from dream.log import get_logger
from dream.work.connection import configured_by

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.context import Context
    from dream.compat.app.task import Task

__all__ = [
    "SHARED",
    "app_or_default",
    "current_app",
    "current_request",
    "current_task",
    "enter",
    "get_current_app",
    "innermost_task",
    "keeping_current_app",
    "leave",
    "request_of",
    "set_current_app",
]

#: Tasks of `shared_task` by name, each a function that defines it in an app.
SHARED: dict[str, Callable[[Celery], Task]] = {}

_app: Celery | None = None


class _Runs(threading.local):
    def __init__(self) -> None:
        self.stack: list[tuple[Any, Context]] = []


_runs = _Runs()


def set_current_app(app: Celery) -> None:
    """Make an app the current one. Its settings are defaults for variables that are not set."""
    global _app
    _app = app
    configured_by(_configure)


def _configure() -> None:
    try:
        _ = _app.settings if _app is not None else None
    except DreamError as error:  # each use of the app raises it; here the environment alone counts
        get_logger(__name__).warning("app_not_usable", app=_app.main if _app is not None else None, error=str(error))


@contextmanager
def keeping_current_app() -> Iterator[None]:
    """Restore the current app at the end of the block."""
    global _app
    before = _app
    try:
        yield
    finally:
        _app = before


def get_current_app() -> Celery:
    """The current app."""
    if _app is None:
        return host().default_app()
    return _app


def app_or_default(app: Celery | None = None) -> Celery:
    """The app, else the current one."""
    return get_current_app() if app is None else app


def enter(task: Any, request: Context) -> None:
    """A run of the task begins in this thread."""
    _runs.stack.append((task, request))


def leave() -> None:
    """The run that began last has ended."""
    _runs.stack.pop()


def request_of(task: Any) -> Context | None:
    """The request of the task's innermost run in this thread; None if it does not run."""
    return next((request for running, request in reversed(_runs.stack) if running is task), None)


def current_request() -> Context | None:
    """The request of the run that this thread is in; None in a direct call, and outside of runs."""
    if not _runs.stack:
        return None
    request = _runs.stack[-1][1]
    return None if request.called_directly else request


def innermost_task() -> Any:
    """The task that runs in this thread, or None."""
    return _runs.stack[-1][0] if _runs.stack else None


current_app: Any = Proxy(get_current_app)
current_task: Any = Proxy(innermost_task)

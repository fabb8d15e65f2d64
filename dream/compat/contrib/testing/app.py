"""Celery's `celery.contrib.testing.app`: an app for tests, which can be the current app for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from dream.compat import current
from dream.compat.app.base import Celery

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "set_trap", "setup_default_app"]

#: Messages of tests have a queue of their own, with the name of Celery's default: no worker of `default` takes them.
DEFAULT_TEST_CONFIG: Mapping[str, Any] = {"enable_utc": True, "timezone": "UTC", "task_default_queue": "celery"}


class Trap:
    """Replaces the current app, and raises an error at each use."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("Test depends on current_app")


def TestApp(  # noqa: N802 (Celery's name)
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,  # noqa: ARG001 (Celery's: logging is left to the tests)
    set_as_current: bool = False,
    log: Any = None,  # noqa: ARG001
    backend: str | None = None,
    broker: str | None = None,
    **parameters: Any,
) -> Celery:
    """An app for tests.

    Parameters:
      name: its name.
      config: its settings; `DEFAULT_TEST_CONFIG` gives the others.
      set_as_current, backend, broker, **parameters: as for `Celery`.
    """
    changes = {**DEFAULT_TEST_CONFIG, **(config or {})}
    named = {"broker_url": broker, "result_backend": backend}
    changes |= {setting: value for setting, value in named.items() if value is not None}
    return Celery(name or "celery.tests", set_as_current=set_as_current, changes=changes, **parameters)


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest collects classes of such names


@contextmanager
def set_trap(app: Celery) -> Iterator[None]:  # noqa: ARG001 (Celery's)
    """Raise an error if code inside uses the current app."""
    with current.keeping_current_app():
        current.set_current_app(Trap())  # type: ignore[arg-type]
        yield


@contextmanager
def setup_default_app(app: Celery, use_trap: bool = False) -> Iterator[None]:
    """Restore the current app at the end of the block; `use_trap` works as `set_trap`."""
    with set_trap(app) if use_trap else current.keeping_current_app():
        yield

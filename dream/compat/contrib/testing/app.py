"""Celery's `celery.contrib.testing.app`: an app for tests, which is the current one for as long as they want it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from dream.compat import current
from dream.compat.app.base import Celery

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "set_trap", "setup_default_app"]

#: Tests' messages have a queue of their own, called as Celery's default is: no worker of `default` takes them.
DEFAULT_TEST_CONFIG: Mapping[str, Any] = {"enable_utc": True, "timezone": "UTC", "task_default_queue": "celery"}


class Trap:
    """Stands in the current app's place, and raises where somebody uses it."""

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
      config: its settings; those of `DEFAULT_TEST_CONFIG` where it names none.
      set_as_current, backend, broker, **parameters: as for `Celery`.
    """
    changes = {**DEFAULT_TEST_CONFIG, **(config or {})}
    named = {"broker_url": broker, "result_backend": backend}
    changes |= {setting: value for setting, value in named.items() if value is not None}
    return Celery(name or "celery.tests", set_as_current=set_as_current, changes=changes, **parameters)


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest looks for what is called so


@contextmanager
def set_trap(app: Celery) -> Iterator[None]:  # noqa: ARG001 (Celery's)
    """Raise where the current app is used, instead of the one that is passed on."""
    with current.keeping_current_app():
        current.set_current_app(Trap())  # type: ignore[arg-type]
        yield


@contextmanager
def setup_default_app(app: Celery, use_trap: bool = False) -> Iterator[None]:
    """Let the current app be the same afterwards as before; `use_trap` as `set_trap`."""
    with set_trap(app) if use_trap else current.keeping_current_app():
        yield

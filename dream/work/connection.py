"""The connection of a process: its broker and its results, each made when it is first used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dream.observe import tracing

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker
    from dream.work.results import ResultStore
    from dream.work.settings import Settings

__all__ = ["Connection", "configured_by", "default", "forget_default", "is_default", "made_once"]

T = TypeVar("T")


class made_once(cached_property[T]):  # noqa: N801 (a decorator, as in functools)
    """A `cached_property` with a lock, as it had before Python 3.12: two threads at once make one value, not two."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        super().__init__(make)
        self._making = threading.RLock()

    if not TYPE_CHECKING:  # the types are those of `cached_property`

        def __get__(self, instance, owner=None):
            with self._making:
                return super().__get__(instance, owner)


class Connection:
    """The broker and the results of one process. Safe to use from several threads.

    Parameters:
      settings: where the servers are.
      queues: names without prefix, which the broker declares.
      broker: the broker of the process, if it has one already; its owner closes it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        queues: Iterable[str] = (),
        broker: AnyBroker | None = None,
    ) -> None:
        tracing.set_up(settings)  # a service has done it before, under its own name
        self.settings = settings
        self._queues = tuple(queues)
        self._closes_broker = broker is None
        self._on_close: list[Callable[[], object]] = []
        if broker is not None:
            self.__dict__["broker"] = broker

    @made_once
    def broker(self) -> AnyBroker:
        from dream.work.broker import make_broker

        return make_broker(self.settings, self._queues)

    @made_once
    def results(self) -> ResultStore:
        """The store of results, in Celery's form."""
        from dream.work.results import ResultStore

        return ResultStore(self.settings)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call a function when the connection is closed, to close objects that use the connection."""
        self._on_close.append(callback)

    def close(self) -> None:
        """Close the broker and the results that were made here, after the objects that use them."""
        while self._on_close:
            self._on_close.pop()()
        if self._closes_broker and "broker" in self.__dict__:
            self.broker.close()
        if "results" in self.__dict__:
            self.results.close()


_default: Connection | None = None
_configure: Callable[[], object] | None = None


def default() -> Connection:
    """The connection of this process, configured by the environment; the current app fills in what is unset."""
    global _default
    from dream.settings import load

    if _default is None and _configure is not None:
        _configure()
    settings = load()
    if _default is None or (_default.settings is not settings and _default.settings != settings):
        # The one before is not closed: another thread may be in the middle of a call. It ends with its last user.
        _default = Connection(settings)
    return _default


def is_default(connection: Connection) -> bool:
    """Whether a connection is the one that this process uses by default."""
    return connection is _default


def configured_by(configure: Callable[[], object]) -> None:
    """Register a function that is called before the default connection is made, to fill in unset settings."""
    global _configure
    _configure = configure


def forget_default() -> None:
    """Make the next call of `default` start anew."""
    global _default
    _default = None


# Processes that a web server forks must not share connections.
os.register_at_fork(after_in_child=forget_default)

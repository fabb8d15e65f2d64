"""The host: the project that lends the façade its own tasks, rows, timetable and worker.

    dream.compat, dream.bridge ─► host() ─► the module of that name, at first use ─► its `host()` ─► a Host
                                                                                └─► None: `dream.compat.alone`

The façade knows neither pictures nor rows. dream's host is the module `dream.celery.host`, which is only imported when
the façade asks for it; another project registers one of its own, or none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.envelope import Envelope
    from dream.compat.periodic import PeriodicTask
    from dream.compat.result import AsyncResult
    from dream.settings import Settings
    from dream.work.broker import AnyBroker
    from dream.work.isolation import Isolation
    from dream.work.results import Meta
    from dream.work.worker import WorkerMiddleware

__all__ = ["Accepted", "Acceptor", "Host", "HostRuns", "WorkerHost", "host", "register"]

#: The host's answer to a task from the bridge: whether the task is new, the reason of a refusal, or the error of a
#: server that is away.
Accepted = bool | str | Exception


class Acceptor(Protocol):
    """Accepts the host's own tasks from other senders."""

    def accept(self, tasks: Sequence[Envelope]) -> Sequence[Accepted]:
        """Accept as many tasks as possible; return the outcome of each."""
        ...

    def close(self) -> None: ...


class HostRuns(Protocol):
    """The runs of the host's own tasks in a worker process."""

    #: The gate of these runs: a task that may kill its worker runs beside none of them.
    isolation: Isolation

    def terminate(self, task_id: str) -> bool:
        """End the run of a task; False if no such run is here."""
        ...


class WorkerHost(Protocol):
    """A worker process, in which an app's tasks run beside the host's own."""

    @property
    def settings(self) -> Settings: ...
    @property
    def broker(self) -> AnyBroker: ...
    @property
    def middleware(self) -> WorkerMiddleware: ...
    @property
    def runs(self) -> HostRuns | None: ...

    def run(self, *, queues: Iterable[str]) -> int:
        """Work until a signal; returns the exit code. Without queues it takes from all that are declared."""
        ...


class Host(Protocol):
    """A project that lends the façade its own tasks, which the façade neither sends nor runs itself."""

    #: The names of its own tasks.
    tasks: Collection[str]
    #: The queues of its own tasks, without prefix.
    queues: Sequence[str]

    def default_app(self) -> Celery:
        """The current app of a process that has made none."""
        ...

    def send(
        self, app: Celery, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Any
    ) -> AsyncResult:
        """Send one of its own tasks to the servers of an app; arguments and errors as of `apply_async`."""
        ...

    def find(self, app: Celery, task_id: str) -> Meta | None:
        """The state of one of its own tasks, if Redis has no result; None if the task is not its own."""
        ...

    def revoke(self, app: Celery, task_ids: Sequence[str]) -> None:
        """Revoke its own tasks among these; workers have been told already."""
        ...

    def irrevocable(self, app: Celery, task_ids: Sequence[str]) -> Collection[str]:
        """The host's tasks among these that no revocation stops."""
        ...

    def worker(self, app: Celery) -> WorkerHost:
        """Make this process a worker; from now on it also sends the app's tasks and stores their results."""
        ...

    def acceptor(self) -> Acceptor:
        """Make an acceptor of its own tasks for the bridge."""
        ...

    def timetable(self) -> Mapping[str, Mapping[str, Any]]:
        """The entries of its own timetable, by name and in the form of `beat_schedule`."""
        ...

    def keep_time(self, settings: Settings, entries: Sequence[PeriodicTask]) -> int:
        """Run the scheduler, which also sends these entries, until a signal; returns the exit code."""
        ...


#: The module to use if there is no host.
_ALONE = "dream.compat.alone"
_name: str | None = "dream.celery.host"


def register(name: str | None) -> None:
    """Name the module whose function `host` gives the host; None lets the façade work alone."""
    global _name
    _name = name
    host.cache_clear()


@cache
def host() -> Host:
    """The host of this process; its module is imported at the first call."""
    found: Host | None = import_module(_name).host() if _name is not None else None
    return found or import_module(_ALONE).host()

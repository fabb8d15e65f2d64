"""The façade without a host: every task is an app's, and a worker is the engine's alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.app.base import Celery
from dream.compat.exceptions import Unsupported
from dream.observe import tracing
from dream.work.connection import Connection
from dream.work.messages import DEFAULT_QUEUE

if TYPE_CHECKING:
    from dream.compat.host import Host
    from dream.compat.periodic import PeriodicTask
    from dream.settings import Settings

__all__ = ["Alone", "AloneWorker", "host"]


@cache
def host() -> Host:
    """The substitute for a host."""
    return Alone()


class Alone:
    """See `dream.compat.host.Host`."""

    tasks: Collection[str] = ()
    queues: Sequence[str] = (DEFAULT_QUEUE,)

    def __init__(self) -> None:
        self._app = Celery("default", set_as_current=False)

    def default_app(self) -> Celery:
        """An app without settings of its own, as Celery makes one."""
        return self._app

    def send(self, app: Celery, name: str, *_how: Any) -> NoReturn:  # noqa: ARG002
        raise Unsupported(f"{name} is no task of a host: there is no host")

    def find(self, app: Celery, task_id: str) -> None:
        """Return None: there are no rows, only results in Redis."""

    def revoke(self, app: Celery, task_ids: Sequence[str]) -> None:
        """Do nothing: there are no rows, and workers and Redis have been told."""

    def irrevocable(self, app: Celery, task_ids: Sequence[str]) -> Collection[str]:  # noqa: ARG002
        return ()

    def worker(self, app: Celery) -> AloneWorker:
        return AloneWorker(app)

    def acceptor(self) -> NoReturn:
        raise Unsupported("`dream bridge` needs all dependencies of dream-pictures: install it without --no-deps")

    def timetable(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def keep_time(self, settings: Settings, entries: Sequence[PeriodicTask]) -> NoReturn:  # noqa: ARG002
        raise Unsupported(
            "periodic tasks need a database, which keeps their runs: install dream-pictures without --no-deps"
        )


class AloneWorker:
    """The engine's broker and middleware; see `dream.compat.host.WorkerHost`.

    Parameters:
      app: finalized; it sends its tasks by this worker's broker.
    """

    #: The runs of a host's own tasks.
    runs = None

    def __init__(self, app: Celery) -> None:
        import dramatiq.broker

        from dream.work.broker import make_broker
        from dream.work.middleware.ready import Ready
        from dream.work.worker import WorkerMiddleware

        self.settings = app.settings
        tracing.set_up(self.settings, "dream-worker")
        self.middleware = WorkerMiddleware(self.settings, app.servers.results)
        self.broker = make_broker(self.settings, middleware=self.middleware.in_order(others=[Ready(self.settings)]))
        app.servers = Connection(self.settings, broker=self.broker)
        # `dramatiq dream.compat.worker.main` runs the global broker.
        dramatiq.broker.set_broker(self.broker)

    def run(self, *, queues: Iterable[str]) -> int:
        """Work until a signal; returns the exit code."""
        from dream.work import worker

        return worker.run(self.broker, self.settings, self.middleware.limit, queues=queues)

"""Celery's `celery.contrib.testing.worker`: a worker in the process of the tests, on a real broker.

It runs the app's own tasks. Dream's own need a database and an object store, so `dream worker` runs those.
A thread that blocks past its time limit is not replaced here.
A test sees the worker's signals, logs and `dream.compat.worker.state`, because both share a process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Middleware

from dream.compat.contrib.testing.tasks import ping
from dream.compat.result import allow_join_result
from dream.compat.signals import Signal
from dream.compat.worker.actors import Tasks
from dream.work.broker import make_broker
from dream.work.process import node_name
from dream.work.worker import WorkerMiddleware

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = ["TestWorkController", "start_worker", "test_worker_started", "test_worker_starting", "test_worker_stopped"]

WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")

#: Seconds that the sender's thread needs in a process of many threads.
_SENDER_FIRST_S = 0.01

test_worker_starting = Signal("test_worker_starting")
test_worker_started = Signal("test_worker_started")
test_worker_stopped = Signal("test_worker_stopped")


class _SenderFirst(Middleware):
    """Delays each run a little: tests expect the line after `delay()` to come before the run."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        time.sleep(_SENDER_FIRST_S)


class TestWorkController:
    """A worker in this process.

    Parameters:
      app: finalized.
      concurrency: tasks at a time, each in a thread.
      hostname: the worker's name.
      queues: further queues beside the app's own.
      shutdown_timeout: seconds that runs have when it stops.
    """

    __test__ = False  # for pytest

    def __init__(
        self, app: Celery, *, concurrency: int, hostname: str | None, queues: Iterable[str], shutdown_timeout: float
    ) -> None:
        own = app.settings
        self.app = app
        self.hostname = hostname or node_name(own.worker_name)
        settings = own.model_copy(update={"shutdown_timeout_s": shutdown_timeout, "worker_name": self.hostname})
        middleware = WorkerMiddleware(settings, app.servers.results)
        self._broker = make_broker(settings, middleware=middleware.in_order(others=[_SenderFirst()]))
        self._tasks = Tasks(app, settings, self._broker, middleware)
        self._broker.add_middleware(self._tasks)
        self._more_queues, self._queues = tuple(queues), set[str]()
        self._timeout_ms = round(shutdown_timeout * 1000)
        self.reload()
        # Not dream's own queues, unless the app names them.
        self._worker = Worker(
            self._broker, queues=self._queues, worker_threads=concurrency, worker_timeout=settings.worker_poll_ms
        )
        self._worker.consumer_whitelist = self._queues

    def reload(self, *_modules: Any, **_how: Any) -> None:
        """Declare the tasks that the app has got since the start."""
        self.app.define_shared()
        self._queues |= self._tasks.queues(self._more_queues)
        self._tasks.declare(self._more_queues)

    def start(self) -> None:
        """Take tasks, in threads of its own."""
        self._broker.emit_after("process_boot")
        self._worker.start()
        test_worker_started.send(self.app, worker=self, consumer=self)

    def stop(self) -> None:
        """Take no more messages, and wait for the runs; requeue the messages of runs that do not end in time."""
        self._worker.stop(timeout=self._timeout_ms)
        self._broker.close()


@contextmanager
def start_worker(
    app: Celery,
    concurrency: int = 1,
    pool: str = "threads",  # noqa: ARG001 (Celery's: tasks always run in threads)
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,  # noqa: ARG001 (Celery's: the tests' own logging gets the lines)
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    hostname: str | None = None,
    queues: str | Iterable[str] = (),
    **_how: Any,
) -> Iterator[TestWorkController]:
    """Run a worker of the app in this process while the block lasts.

    Parameters:
      concurrency: tasks at a time.
      loglevel: the level of log lines about tasks.
      perform_ping_check: first run a task, which must end within `ping_task_timeout` seconds.
      shutdown_timeout: seconds that runs have when it stops.
      hostname: the worker's name.
      queues: further queues beside the app's own, as a list or separated by commas.

    Raises:
      ImproperlyConfigured, SettingsError: dream has no broker of the kind that the app names.
      TimeoutError: no task ran in time.
    """
    app.finalize()
    app.set_current()
    logging.getLogger("celery").setLevel(loglevel if isinstance(loglevel, int) else loglevel.upper())
    test_worker_starting.send(app)
    names = queues.split(",") if isinstance(queues, str) else queues
    worker = TestWorkController(
        app, concurrency=concurrency, hostname=hostname, queues=names, shutdown_timeout=shutdown_timeout
    )
    worker.start()
    try:
        if perform_ping_check:
            with allow_join_result():
                app.tasks[ping.name].delay().get(timeout=ping_task_timeout)
        yield worker
    finally:
        worker.stop()
        test_worker_stopped.send(app, worker=worker)

"""A worker process: its middleware in order, and its loop until a signal comes or a thread can no longer be stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dramatiq import Worker
from dramatiq.middleware import CurrentMessage, Middleware

from dream.log import get_logger
from dream.work.middleware.answering import Answering
from dream.work.middleware.metrics import Metrics
from dream.work.middleware.ready import doing
from dream.work.middleware.retries import Ledger, Retries, RetryPolicy
from dream.work.middleware.sentry import Sentry
from dream.work.middleware.time_limit import TimeLimit
from dream.work.middleware.tracing import Tracing
from dream.work.middleware.unknown import Unknown
from dream.work.process import StopSignal, node_name, show_life

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker
    from dream.work.results import ResultStore
    from dream.work.settings import Settings

__all__ = ["EXIT_WEDGED", "WorkerMiddleware", "run"]

log = get_logger(__name__)

#: The exit code of a worker that must be replaced: it has a thread that cannot be stopped, or is unfit.
EXIT_WEDGED = 70
_LOOK_EVERY_S = 1.0
#: Seconds that a wedged worker may take to end, beyond the time that its runs have.
_LEAVE_S = 5.0


class WorkerMiddleware:
    """The middleware of a worker process. A process that only sends messages needs none.

    Parameters:
      settings: retries, time limit, the worker's name.
      results: keeps the failure of a task that no worker knows.
      aliases: older names of tasks, and their present ones.
      ledger: records retries and final failures.
    """

    def __init__(
        self,
        settings: Settings,
        results: ResultStore,
        *,
        aliases: Mapping[str, str] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        policy = RetryPolicy.of(settings)
        self.sentry = Sentry(aliases or {})
        self.tracing = Tracing(aliases or {})
        self.retries = Retries(max_retries=policy.max_retries, policy=policy, ledger=ledger)
        self.limit = TimeLimit.of(settings)
        self.answering = Answering(settings, node_name(settings.worker_name))
        self.metrics = Metrics(settings, aliases or {}, self.answering)
        self.unknown = Unknown(settings, results, self.answering)

    def in_order(self, claims: Iterable[Middleware] = (), others: Iterable[Middleware] = ()) -> list[Middleware]:
        """The list for the broker. Hooks before a run go down the list, hooks after a run go up.

        Parameters:
          claims: decides whether a message may run, and writes the outcome of a run.
          others: further middleware, which starts and stops with the worker.
        """
        return [
            # First before a run and last after it: its scope contains everything that the others log.
            self.sentry,
            # Around everything else: its span contains what the others ask of the servers.
            self.tracing,
            # Around everything that decides on a message and writes its outcome.
            self.metrics,
            # After the outcome of a run is written: only then may a retry be sent.
            self.retries,
            # Before the clock starts: the wait for a free place does not count as work.
            *claims,
            # The clock runs only while the task runs.
            self.limit,
            # The actor asks for its message.
            CurrentMessage(),
            # Before questions are answered: a worker that answers can work.
            *others,
            # Replaces the table of actors, and adds its question.
            self.unknown,
            # Last: all other middleware has added its commands when this one begins to listen.
            self.answering,
        ]


def run(
    broker: AnyBroker,
    settings: Settings,
    limit: TimeLimit,
    *,
    queues: Iterable[str] = (),
    threads: int | None = None,
    is_unfit: Callable[[], bool] = lambda: False,
) -> int:
    """Work until SIGTERM or SIGINT, then close the broker; returns the exit code.

    Parameters:
      broker: with its middleware and actors.
      limit: the broker's time limit, which finds threads that cannot be stopped.
      queues: names without prefix; the worker takes messages from these only. Without any, from all that are declared.
      threads: tasks at a time; `DREAM_WORKER_THREADS` by default.
      is_unfit: returns whether this process can no longer work and must be replaced.
    """
    stop = StopSignal()
    worker = Worker(
        broker,
        queues={settings.queue_prefix + queue for queue in queues} or None,
        worker_threads=threads or settings.worker_threads,
        worker_timeout=settings.worker_poll_ms,
    )
    # Dramatiq's own command emits this, too; the time limit's clock starts with it.
    broker.emit_after("process_boot")
    worker.start()
    is_wedged = False
    while not is_wedged and not stop.wait(_LOOK_EVERY_S):
        show_life(settings, broker.pulse, doing=doing(worker))
        is_wedged = bool(limit.wedged()) or is_unfit()
    log.info("worker_stopping", wedged=is_wedged)
    if is_wedged:
        # Nobody else would end this process: a stuck thread may block the clean end, too.
        end = threading.Timer(settings.shutdown_timeout_s + _LEAVE_S, os._exit, (EXIT_WEDGED,))
        end.daemon = True
        end.start()
        _leave(worker, limit)
    worker.stop(timeout=round(settings.shutdown_timeout_s * 1000))
    broker.close()
    return EXIT_WEDGED if is_wedged else 0


def _leave(worker: Worker, limit: TimeLimit) -> None:
    """End without wedged threads: other workers take this one's messages only after this process has ended."""
    for thread in worker.workers:
        thread.stop()
    wedged = limit.wedged()  # after the stop: no thread takes another message
    worker.workers = [thread for thread in worker.workers if thread.ident not in wedged]

"""A worker process: Dramatiq's threads over our actors, until a signal, a wedged thread or a dead pool ends it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from dramatiq import Worker

from dream.actors import broker, shared
from dream.log import get_logger
from dream.middleware.time_limit import TimeLimit
from dream.presence import refuse_cluster
from dream.process import StopSignal, show_life

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["EXIT_WEDGED", "run"]

log = get_logger(__name__)

#: The exit code of a worker with a thread that cannot be stopped, or no pool; whoever started it starts another.
EXIT_WEDGED = 70
_LOOK_EVERY_S = 1.0
#: What a wedged worker may take for its end beyond the time that its runs have.
_LEAVE_S = 5.0


def run(settings: Settings, *, queues: set[str] | None = None, threads: int | None = None) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code.

    Parameters:
      queues: the queues to take messages from, without prefix; all by default.
      threads: tasks at a time; `DREAM_WORKER_THREADS` by default.
    """
    refuse_cluster(settings)
    stop = StopSignal()
    worker = Worker(
        broker,
        queues={settings.queue_prefix + queue for queue in queues} if queues else None,
        worker_threads=threads or settings.worker_threads,
        worker_timeout=settings.worker_poll_ms,
    )
    # What Dramatiq's own command tells the middleware; the time limit's clock starts with it.
    broker.emit_after("process_boot")
    worker.start()
    limit = next(each for each in broker.middleware if isinstance(each, TimeLimit))
    is_wedged = False
    while not is_wedged and not stop.wait(_LOOK_EVERY_S):
        show_life(settings)
        is_wedged = bool(limit.wedged()) or shared.is_unfit
    log.info("worker_stopping", wedged=is_wedged)
    if is_wedged:
        # Nobody else would end us: whatever holds the thread may hold our end, too.
        end = threading.Timer(settings.shutdown_timeout_s + _LEAVE_S, os._exit, (EXIT_WEDGED,))
        end.daemon = True
        end.start()
        _leave(worker, limit)
    worker.stop(timeout=round(settings.shutdown_timeout_s * 1000))
    broker.close()
    return EXIT_WEDGED if is_wedged else 0


def _leave(worker: Worker, limit: TimeLimit) -> None:
    """Wait for no thread that cannot be stopped: until this worker is gone, no other takes its messages."""
    for thread in worker.workers:
        thread.stop()
    wedged = limit.wedged()  # once none of them takes another message
    worker.workers = [thread for thread in worker.workers if thread.ident not in wedged]

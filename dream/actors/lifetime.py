"""The start and stop of a worker process, beside Dramatiq's threads and by any start command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq import Broker, Worker

from dream.work.middleware.ready import Ready

if TYPE_CHECKING:
    from dream.actors.resources import WorkerResources

__all__ = ["Lifetime"]


class Lifetime(Ready):
    """Starts the pool with the worker and stops it after the worker: else its processes would block a SIGTERM."""

    def __init__(self, resources: WorkerResources) -> None:
        super().__init__(resources.settings, pool=resources.settings.pool_processes)
        self._resources = resources

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        super().before_worker_boot(broker, worker)
        self._resources.start_pool()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        super().before_worker_shutdown(broker, worker)
        # A run that waits for the pool's start would hold up the stop.
        # Stop the threads first: otherwise they fetch that run's message again.
        for thread in worker.workers:
            thread.stop()
        self._resources.stop_starting_pool()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        super().after_worker_shutdown(broker, worker)
        self._resources.stop_pool()
        self._resources.close()

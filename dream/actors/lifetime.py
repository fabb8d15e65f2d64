"""What a worker process starts and stops beside Dramatiq's threads, however it was started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from dream import log as logs
from dream.log import get_logger
from dream.process import node_name, say_ready

if TYPE_CHECKING:
    from dream.actors.resources import WorkerResources

__all__ = ["Lifetime"]

log = get_logger(__name__)

_LOOK_EVERY_S = 0.05


class Lifetime(Middleware):
    """The pool starts with the worker and stops after it: SIGTERM would hang on its processes otherwise.

    So does our logging: whoever only imports the actors keeps a logging of their own.
    """

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._stopped = threading.Event()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        logs.configure(self._resources.settings)
        self._resources.start_pool()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        threading.Thread(target=self._say_ready, args=(worker,), name="ready", daemon=True).start()

    def _say_ready(self, worker: Worker) -> None:
        """A worker takes work once each of its consumers has found its broker."""
        while any(thread.consumer is None for thread in list(worker.consumers.values())):
            if self._stopped.wait(_LOOK_EVERY_S):
                return
        settings = self._resources.settings
        log.info(
            "worker_ready",
            name=node_name(settings.worker_name),
            threads=worker.worker_threads,
            pool=settings.pool_processes,
        )
        say_ready(settings)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._stopped.set()
        self._resources.stop_pool()
        self._resources.close()

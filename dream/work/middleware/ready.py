"""The start of a worker: refuse a Redis that cannot work, and report it as ready once each consumer has its broker."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

from dream import log as logs
from dream.log import get_logger
from dream.observe import sentry
from dream.work.presence import refuse_wrong_redis
from dream.work.process import exit_code, node_name, say_ready

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Ready", "doing", "takes_messages"]

log = get_logger(__name__)

_LOOK_EVERY_S = 0.05


def takes_messages(worker: Worker) -> bool:
    """Whether each consumer has found the broker."""
    return all(thread.consumer is not None for thread in list(worker.consumers.values()))


def doing(worker: Worker) -> str:
    """A line for the service manager."""
    queues = ", ".join(sorted({q_name(queue) for queue in list(worker.consumers)}))
    return f"takes {queues}; {worker.worker_threads} threads" if takes_messages(worker) else "waits for the broker"


def _as_warning(record: logging.LogRecord) -> bool:
    """Lower Dramatiq's line about a broker that is away: the worker tries again, and Sentry would get each try."""
    if record.levelno == logging.CRITICAL and not record.exc_info:
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True


class Ready(Middleware):
    """See the module. Logging starts with the worker: a process that only imports the actors keeps its own logging.

    Parameters:
      settings: the worker's name, and its ready file.
      **details: further fields of the log's line.
    """

    def __init__(self, settings: Settings, **details: Any) -> None:
        self._settings = settings
        self._details = details
        self._stopped = threading.Event()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        logs.configure(self._settings)
        for queue in broker.get_declared_queues() | broker.get_declared_delay_queues():
            logging.getLogger(f"dramatiq.worker.ConsumerThread({queue})").addFilter(_as_warning)
        # Here, because Dramatiq's own command comes here, too. Dramatiq would log any other error, and go on.
        if code := exit_code(self._check):
            raise SystemExit(code)

    def _check(self) -> int:
        sentry.set_up(self._settings)
        refuse_wrong_redis(self._settings)
        return 0

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        threading.Thread(target=self._report, args=(worker,), name="ready", daemon=True).start()

    def _report(self, worker: Worker) -> None:
        while not takes_messages(worker):
            if self._stopped.wait(_LOOK_EVERY_S):
                return
        name = node_name(self._settings.worker_name)
        log.info("worker_ready", name=name, threads=worker.worker_threads, **self._details)
        say_ready(self._settings, doing=doing(worker))

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._stopped.set()

"""Metrics of runs: the wait before each, its duration, its outcome, and deliveries after the first one.

A worker with metrics answers the question `figures` with some of them, for the page of operators.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

from dream.errors import HandedBack, ImageRejected, LeaseLost, TaskRevoked
from dream.observe import exposition
from dream.observe.metrics import (
    IN_WORK,
    OUTCOMES,
    PICTURES,
    REDELIVERIES,
    RUN_SECONDS,
    RUNS,
    STEP_SECONDS,
    THREADS,
    WAIT_SECONDS,
)
from dream.work.messages import REDELIVERED

if TYPE_CHECKING:
    from dream.work.middleware.answering import Answering
    from dream.work.settings import Settings

__all__ = ["SHOWN", "Metrics", "note_outcome"]

#: The metrics in the answer to `figures`.
SHOWN = frozenset(each.name for each in (WAIT_SECONDS, RUN_SECONDS, STEP_SECONDS, RUNS, PICTURES))

#: The label of tasks that this worker does not know: a stranger may send any name.
_UNKNOWN = "unknown"
_here = threading.local()


def note_outcome(outcome: str) -> None:
    """The outcome of this thread's run, from code that lets no error of the task through; one of `OUTCOMES`."""
    _here.outcome = outcome


class Metrics(Middleware):
    """See the module. Metrics are switched on with the worker, so that each forked process counts its own runs.

    Parameters:
      settings: where metrics are served.
      aliases: older names of tasks, and their present ones, which are the labels.
      answering: gets the command.
    """

    def __init__(self, settings: Settings, aliases: Mapping[str, str], answering: Answering) -> None:
        self._settings = settings
        self._answering = answering
        self._aliases = aliases
        self._queue_prefix = settings.queue_prefix
        self._is_on = False

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        exposition.start(self._settings, "worker")
        self._is_on = RUNS.is_on
        if self._is_on:
            self._answering.commands["figures"] = lambda _: exposition.figures(SHOWN)
        THREADS.set(worker.worker_threads)
        for name in set(broker.actors) - set(self._aliases):
            for outcome in OUTCOMES:
                RUNS.begin(name, outcome)

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        if not self._is_on:
            return
        _here.task, _here.outcome, _here.began = self._label(broker, message), None, time.perf_counter()
        IN_WORK.add(1)
        due_ms = max(message.message_timestamp, message.options.get("eta") or 0)
        queue = q_name(message.queue_name).removeprefix(self._queue_prefix)
        WAIT_SECONDS.observe(max(0.0, time.time() - due_ms / 1000), queue, _here.task)
        if REDELIVERED in message.options or message.message_id in getattr(broker, "suspects", ()):
            REDELIVERIES.add(_here.task)

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002 (Dramatiq's hook)
        message: MessageProxy,
        *,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        if self._is_on:
            self._ended(_here.outcome or _outcome_of(message, exception))

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        if self._is_on:
            self._ended(_here.outcome or ("failed" if message.failed else "not_run"))

    def _ended(self, outcome: str) -> None:
        IN_WORK.add(-1)
        RUNS.add(_here.task, outcome)
        if outcome != "not_run":
            RUN_SECONDS.observe(time.perf_counter() - _here.began, _here.task)

    def _label(self, broker: Broker, message: MessageProxy) -> str:
        name = self._aliases.get(message.actor_name, message.actor_name)
        return name if dict.__contains__(broker.actors, message.actor_name) else _UNKNOWN


def _outcome_of(message: MessageProxy, exception: BaseException | None) -> str:
    if exception is None:
        return "failed" if message.failed else "succeeded"
    if isinstance(exception, HandedBack):
        return "requeued"
    if isinstance(exception, LeaseLost):
        return "lease_lost"
    if isinstance(exception, TaskRevoked):
        return "revoked"
    if not message.failed:
        return "retried"
    return "rejected" if isinstance(exception, ImageRejected) else "failed"

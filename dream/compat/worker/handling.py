"""One message of a caller's own task in a worker: from its fields to its acknowledgement.

message ─► revoked, expired? ─► STARTED ─► the task ─► links ─► its outcome is stored ─► hooks ─► acked
                │                              └─► Retry: RETRY is stored, the next message is sent, then acked
                └─► REVOKED
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from dramatiq.middleware import SkipMessage

from dream.compat import signals
from dream.compat.app.backend import keep
from dream.compat.app.context import Context, Request
from dream.compat.app.publishing import limits_of, put
from dream.compat.app.trace import Ended, ExceptionInfo, conclude, log_received, trace
from dream.compat.envelope import Envelope
from dream.compat.exceptions import InvalidTaskError, Reject, Retry, TaskRevokedError, WorkerLostError
from dream.compat.failures import Stopped
from dream.compat.states import FAILURE, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from dream.compat.worker.state import successful_requests
from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import bind, get_logger
from dream.observe import tracing
from dream.work import serialization
from dream.work.isolation import MAX_DEATHS
from dream.work.messages import REDELIVERED, TURN
from dream.work.middleware.metrics import note_outcome
from dream.work.patience import for_a_minute

if TYPE_CHECKING:
    from dream.compat.app.task import Task
    from dream.compat.canvas import Signature
    from dream.compat.worker.actors import Tasks

__all__ = ["handle"]

log = get_logger(__name__)

#: Outcomes of runs in metrics; a task may also end in a state of its own.
_OUTCOMES = defaultdict(
    lambda: "succeeded", {FAILURE: "failed", RETRY: "retried", REVOKED: "revoked", REJECTED: "requeued"}
)


def handle(worker: Tasks, task: Task, message: Any, proxy: Any, *, is_lost: bool = False) -> None:
    """Run the task of a message, and store its outcome.

    Parameters:
      message: the message.
      proxy: Dramatiq's proxy of it, which is acked, failed or requeued.
      is_lost: its runs have killed their workers, so it is not run again.

    Raises:
      SkipMessage: the message is dead-lettered: the task has rejected it, or is lost.
      ResultsUnavailable: Redis was away for a minute; the caller requeues the message.
    """
    try:
        envelope = Envelope.from_message(message, worker.queue_prefix)
        delivery = _Delivery(worker, task, envelope, proxy)
        request = delivery.request = task.Request(
            envelope,
            delivery,
            args=list(_opened(envelope.args)),
            kwargs=dict(_opened(envelope.kwargs)),
            hostname=worker.name,
            time_limit=delivery.limits[0],
            soft_time_limit=delivery.limits[1],
        )
        if REDELIVERED in message.options or worker.is_suspect(proxy):
            request.delivery_info["redelivered"] = True
        is_unwanted = envelope.id in worker.revoked or envelope.has_expired
    except Exception as error:  # noqa: BLE001 (anybody may have written the message)
        _refuse_malformed(worker, task, proxy, error)
    log_received(request)
    signals.task_received.send(worker, request=Request.of(request))
    if is_unwanted:
        delivery.refuse(request)
        return
    with bind(task_id=envelope.id, task=task.name):
        if is_lost:
            delivery.dead_letter(request)
        ended = trace(task, request)
    _observe(envelope, ended)
    if ended.state == REJECTED:
        delivery.reject(ended.value)
    elif ended.state == SUCCESS:
        successful_requests.append(envelope.id)


def _observe(envelope: Envelope, ended: Ended) -> None:
    """Tell traces and metrics the end of a run."""
    tracing.note(state=ended.state, attempt=envelope.retries + 1)
    if ended.state == FAILURE:
        tracing.fail(ended.value)
    note_outcome(_OUTCOMES[ended.state])


def _refuse_malformed(worker: Tasks, task: Task, message: Any, error: Exception) -> NoReturn:
    """Dead-letter a message with a wrong field, such as a time that is none."""
    log.error("message_malformed", task=task.name, task_id=message.message_id, error=repr(error))
    invalid = InvalidTaskError(f"the message of {task.name} is malformed: {error!r}")
    keep(task, Envelope(task=task.name, id=message.message_id), Ended(FAILURE, invalid, ExceptionInfo(invalid)))
    signals.task_rejected.send(worker, message=message, exc=error)
    message.fail()
    raise SkipMessage(str(invalid))


def _opened(value: Any) -> Any:
    """The arguments with values of types that JSON lacks; plain values are returned as they are."""
    values = value.values() if isinstance(value, dict) else value
    if not any(isinstance(each, dict | list) for each in values):
        return value
    return serialization.loads(json.dumps(value))


class _Unsent(Stopped):
    """A retry could not be sent for a minute. The task does not fail; its message is requeued."""

    state = REJECTED
    error = Reject("its retry cannot be sent", requeue=True)


class _Delivery:
    """See `dream.compat.app.trace.Delivered`."""

    def __init__(self, worker: Tasks, task: Task, envelope: Envelope, message: Any) -> None:
        self._worker = worker
        self._task = task
        self._envelope = envelope
        self._message = message
        self._is_given_up = False
        #: The hard and the soft time limit in seconds; None if not set.
        self.limits = limits_of(envelope, task)
        self.request: Context | None = None

    def started(self) -> None:
        own = self._task.track_started
        if self._task.app.conf.task_track_started if own is None else own:
            about = {"pid": os.getpid(), "hostname": self._worker.name}
            keep(self._task, self._envelope, Ended(STARTED, about))

    def watched(self) -> AbstractContextManager[object]:
        hard_s, soft_s = self.limits
        hard_s = self._worker.time_limit_s if hard_s is None else hard_s
        if hard_s != self._worker.time_limit_s:
            self._worker.set_backstop(hard_s)
        give_up = partial(self._give_up, threading.get_ident())
        return self._worker.watch.watched(self._envelope.id, hard_s, soft_s, give_up)

    def retry(self, retry: Retry, envelope: Envelope, *, keeps_place: bool) -> None:
        # A message of the bridge has no turn, and its sender's priority in the envelope.
        own_turn = {name: value for name, value in self._message.options.items() if name == TURN}
        try:
            keep(self._task, self._envelope, Ended(RETRY, retry, ExceptionInfo.of_retry(retry)))
            for_a_minute(lambda: put(self._task.app, envelope, own_turn if keeps_place else None))
        except (BrokerUnavailable, ResultsUnavailable) as error:
            log.warning("retry_not_sent", reason=str(error))
            raise _Unsent from error

    def follow(self, link: Signature, *args: Any, **options: Any) -> None:
        for_a_minute(lambda: link.apply_async(args, **options))

    def ended(self, ended: Ended) -> None:
        # RETRY was stored before the next message was sent.
        if ended.state != RETRY and not self._is_given_up:
            keep(self._task, self._envelope, ended, self.request)
            if ended.state == FAILURE and not isinstance(ended.value, tuple(self._task.throws)):
                self._worker.report(self._message, ended.value)

    def refuse(self, request: Context) -> None:
        """Store REVOKED: the task was revoked or has expired, and is not run."""
        is_late = self._envelope.id not in self._worker.revoked
        error = TaskRevokedError("expired" if is_late else "revoked")
        keep(self._task, self._envelope, Ended(REVOKED, error))
        log.info("task_revoked", task=self._task.name, task_id=self._envelope.id, reason=str(error))
        seen = Request.of(request)
        signals.task_revoked.send(self._task, request=seen, terminated=False, signum=None, expired=is_late)

    def reject(self, error: Any) -> None:
        """Requeue or dead-letter the message, as the task's `Reject` asks."""
        if error.requeue:
            self._worker.requeue(self._message)
            return
        keep(self._task, self._envelope, Ended(FAILURE, error, ExceptionInfo(error)))
        self._message.fail()
        raise SkipMessage(f"the task has rejected its message: {error.reason}")

    def dead_letter(self, request: Context) -> None:
        """Dead-letter the message without a run, which would kill this worker, too."""
        error = WorkerLostError(f"its worker died {MAX_DEATHS} times while it ran")
        log.error("task_lost", reason=str(error))
        conclude(self._task, request, Ended(FAILURE, error, ExceptionInfo(error)))
        self._message.fail()
        raise SkipMessage(str(error))

    def _give_up(self, thread_id: int, interrupt: type[Stopped]) -> None:
        """Store the outcome of a run whose thread blocks, and let the worker be replaced."""
        self._is_given_up = True
        stop = interrupt()
        ended = Ended(stop.state, stop.error, ExceptionInfo(stop.error))
        if ended.state == REJECTED:
            log.warning("run_handed_back", task=self._task.name, task_id=self._envelope.id, reason=str(ended.value))
            self._worker.requeue_now(self._message)
            return
        log.warning("run_given_up", task=self._task.name, task_id=self._envelope.id, reason=str(ended.value))
        keep(self._task, self._envelope, ended)
        if ended.state == FAILURE:
            self._worker.report(self._message, ended.value)
        self._worker.give_up(self._message, thread_id)

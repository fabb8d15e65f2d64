"""What a worker does with one message of a caller's own task.

message ─► revoked, expired? ─► STARTED ─► the task ─► links ─► its end is kept ─► hooks ─► acked
                │                              └─► Retry: RETRY is kept, the next message goes out, then acked
                └─► REVOKED
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from dramatiq.middleware import SkipMessage

from dream import serialization
from dream.compat import signals
from dream.compat.app import run_log
from dream.compat.app.context import Context
from dream.compat.app.envelopes import limits_of
from dream.compat.app.publishing import put
from dream.compat.app.trace import Ended, ExceptionInfo, conclude, trace
from dream.compat.envelope import Envelope
from dream.compat.exceptions import InvalidTaskError, Reject, Retry, TaskRevokedError, WorkerLostError
from dream.compat.states import FAILURE, REJECTED, RETRY, REVOKED, STARTED, SUCCESS
from dream.compat.stopping import Stopped
from dream.compat.worker.keeping import keep
from dream.compat.worker.patience import patiently
from dream.compat.worker.request import Request
from dream.compat.worker.state import successful_requests
from dream.compat.worker.suspects import MAX_DEATHS
from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import bind, get_logger
from dream.messages import REDELIVERED

if TYPE_CHECKING:
    from dream.compat.app.task import Task
    from dream.compat.canvas import Signature
    from dream.compat.worker.actors import Tasks

__all__ = ["handle"]

log = get_logger(__name__)


def handle(worker: Tasks, task: Task, message: Any, proxy: Any, *, is_lost: bool = False) -> None:
    """Run the task that a message carries, and say what came of it.

    Parameters:
      message: what was sent.
      proxy: the same in Dramatiq's hands, which is acked, failed or handed back.
      is_lost: it has killed its workers, and is not run again.

    Raises:
      SkipMessage: the message goes to the dead letters: the task has rejected it, or is lost.
      ResultsUnavailable: Redis was away for a minute; the message is to be handed back.
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
    except Exception as error:  # noqa: BLE001 (a stranger may have written anything)
        _refuse_malformed(worker, task, proxy, error)
    run_log.received(request)
    signals.task_received.send(worker, request=Request.of(request))
    if is_unwanted:
        delivery.refuse(request)
        return
    with bind(task_id=envelope.id, task=task.name):
        if is_lost:
            delivery.bury(request)
        ended = trace(task, request)
    if ended.state == REJECTED:
        delivery.reject(ended.value)
    elif ended.state == SUCCESS:
        successful_requests.append(envelope.id)


def _refuse_malformed(worker: Tasks, task: Task, message: Any, error: Exception) -> NoReturn:
    """A message that says what cannot be, such as a time that is none."""
    log.error("message_malformed", task=task.name, task_id=message.message_id, error=repr(error))
    invalid = InvalidTaskError(f"the message of {task.name} is malformed: {error!r}")
    keep(task, Envelope(task=task.name, id=message.message_id), Ended(FAILURE, invalid, ExceptionInfo(invalid)))
    signals.task_rejected.send(worker, message=message, exc=error)
    message.fail()
    raise SkipMessage(str(invalid))


def _opened(value: Any) -> Any:
    """What JSON has no type for as what it was; a message of plain values is as it is."""
    values = value.values() if isinstance(value, dict) else value
    if not any(isinstance(each, dict | list) for each in values):
        return value
    return serialization.loads(json.dumps(value))


class _Unsent(Stopped):
    """A retry cannot be sent for a minute: the task does not fail for that, but this run comes again."""

    state = REJECTED
    error = Reject("its retry cannot be sent", requeue=True)


class _Delivery:
    """See `dream.compat.app.delivery.Delivered`."""

    def __init__(self, worker: Tasks, task: Task, envelope: Envelope, message: Any) -> None:
        self._worker = worker
        self._task = task
        self._envelope = envelope
        self._message = message
        self._is_given_up = False
        #: Seconds, hard and soft, as far as they are set.
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

    def retry(self, retry: Retry, envelope: Envelope) -> None:
        try:
            keep(self._task, self._envelope, Ended(RETRY, retry, ExceptionInfo.of_retry(retry)))
            patiently(lambda: put(self._task.app, envelope))
        except (BrokerUnavailable, ResultsUnavailable) as error:
            log.warning("retry_not_sent", reason=str(error))
            raise _Unsent from error

    def follow(self, link: Signature, *args: Any, **options: Any) -> None:
        patiently(lambda: link.apply_async(args, **options))

    def ended(self, ended: Ended) -> None:
        # What a retry means has been kept before its message went out.
        if ended.state != RETRY and not self._is_given_up:
            keep(self._task, self._envelope, ended, self.request)
            if ended.state == FAILURE and not isinstance(ended.value, tuple(self._task.throws)):
                self._worker.report(self._message, ended.value)

    def refuse(self, request: Context) -> None:
        """The task is not run: it was revoked, or it came too late."""
        is_late = self._envelope.id not in self._worker.revoked
        error = TaskRevokedError("expired" if is_late else "revoked")
        keep(self._task, self._envelope, Ended(REVOKED, error))
        log.info("task_revoked", task=self._task.name, task_id=self._envelope.id, reason=str(error))
        seen = Request.of(request)
        signals.task_revoked.send(self._task, request=seen, terminated=False, signum=None, expired=is_late)

    def reject(self, error: Any) -> None:
        """Back on the queue, or to the dead letters."""
        if error.requeue:
            self._worker.hand_back(self._message)
            return
        keep(self._task, self._envelope, Ended(FAILURE, error, ExceptionInfo(error)))
        self._message.fail()
        raise SkipMessage(f"the task has rejected its message: {error.reason}")

    def bury(self, request: Context) -> None:
        """The task is not run, for it would kill this worker, too."""
        error = WorkerLostError(f"its worker died {MAX_DEATHS} times while it ran")
        log.error("task_lost", reason=str(error))
        conclude(self._task, request, Ended(FAILURE, error, ExceptionInfo(error)))
        self._message.fail()
        raise SkipMessage(str(error))

    def _give_up(self, thread_id: int, ended: Ended) -> None:
        """The run's thread blocks: say how it ended, in its place, and let the worker be replaced."""
        self._is_given_up = True
        if ended.state == REJECTED:
            log.warning("run_handed_back", task=self._task.name, task_id=self._envelope.id, reason=str(ended.value))
            self._worker.hand_back_now(self._message)
            return
        log.warning("run_given_up", task=self._task.name, task_id=self._envelope.id, reason=str(ended.value))
        keep(self._task, self._envelope, ended)
        if ended.state == FAILURE:
            self._worker.report(self._message, ended.value)
        self._worker.give_up(self._message, thread_id)

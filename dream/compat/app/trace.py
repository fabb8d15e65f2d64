"""One run of a caller's own task, in a worker or in place: hooks, signals and log lines around it, and its outcome.

before_start, task_prerun ─► run ─┬─► returned  ─► SUCCESS: links, on_success, task_success
                                  ├─► Retry     ─► RETRY: on_retry, task_retry
                                  ├─► Ignore    ─► nothing is stored
                                  ├─► Reject    ─► the message is dead-lettered or requeued
                                  └─► raised    ─► FAILURE: error links, on_failure, task_failure
after_return (unless a retry follows), task_postrun

In a worker an error need not be an `Exception`: `sys.exit()` in a task is a failure of that task.

| logger, with Celery's words, and the task as `data` | level | logs |
| --- | --- | --- |
| `celery.worker.strategy` | INFO | received |
| `celery.app.trace` | INFO | succeeded |
| `celery.app.trace.dream` | INFO | raised an error that the task `throws` |
| | ERROR | raised any other error |

Failures have a logger of their own below Celery's, because Sentry ignores Celery's own if Celery is installed.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import NAMESPACE_OID, uuid5

from dream.compat import current, signals
from dream.compat.app.backend import keep
from dream.compat.app.context import Context, Request
from dream.compat.app.publishing import envelope_of, limits_of
from dream.compat.canvas import maybe_signature
from dream.compat.exceptions import EncodeError, Ignore, Reject, Retry, WorkerLostError
from dream.compat.failures import is_callers, stop_behind
from dream.compat.result import EagerResult
from dream.compat.states import FAILURE, IGNORED, PENDING, PROPAGATE_STATES, REJECTED, RETRY, REVOKED, SUCCESS
from dream.log import TASK_FAILURES

if TYPE_CHECKING:
    from dream.compat.app.task import Task
    from dream.compat.canvas import Signature
    from dream.compat.envelope import Envelope

__all__ = [
    "LOG_FAILURE",
    "LOG_RECEIVED",
    "LOG_SUCCESS",
    "Delivered",
    "Ended",
    "ExceptionInfo",
    "conclude",
    "log_received",
    "run_in_place",
    "trace",
]


class Delivered(Protocol):
    """The message of a run, in a worker's hands."""

    def started(self) -> None:
        """The run begins."""

    def watched(self) -> AbstractContextManager[object]:
        """A context for the task's own code: its time limits hold, and it can be ended."""

    def retry(self, retry: Retry, envelope: Envelope, *, keeps_place: bool) -> None:
        """Store RETRY, and then put the next message of the task on its queue.

        Parameters:
          keeps_place: the next message has the priority of this one; else the envelope's.
        """

    def follow(self, link: Signature, *args: Any, **options: Any) -> None:
        """Send a link; retry while the broker is away."""

    def ended(self, ended: Ended) -> None:
        """Store the outcome of the run."""


log = logging.getLogger(__name__)


class ExceptionInfo:
    """An error with its traceback, for hooks and signals: `exception`, `type`, `traceback`, `tb`.

    If billiard is loaded, `isinstance` takes it for billiard's `ExceptionInfo`, because libraries test that first.
    """

    def __init__(self, error: BaseException) -> None:
        self.exception = error
        self.type = type(error)
        self.tb = error.__traceback__
        self.traceback = "".join(traceback.format_exception(error))
        self.internal = False

    @classmethod
    def of_retry(cls, retry: Retry) -> ExceptionInfo:
        """The error behind a retry; the traceback ends with the time of the next run, as in Celery."""
        if not isinstance(retry.exc, BaseException):
            return cls(retry)
        info = cls(retry.exc)
        info.traceback += "\n" + "".join(traceback.format_exception_only(retry))
        return info

    @property
    def __class__(self) -> Any:
        billiards = sys.modules.get("billiard.einfo")
        return ExceptionInfo if billiards is None else billiards.ExceptionInfo

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of an ExceptionInfo cannot be changed")

    def __str__(self) -> str:
        return self.traceback


@dataclass(frozen=True)
class Ended:
    """The outcome of a run.

    Parameters:
      state: one of `dream.compat.states`.
      value: the return value, or the error.
      info: of the error.
    """

    state: str
    value: Any = None
    info: ExceptionInfo | None = None

    @property
    def traceback(self) -> str | None:
        return self.info.traceback if self.info is not None else None


def trace(task: Task, request: Context) -> Ended:
    """Run the task; return its outcome. Only errors that are meant for the process are raised."""
    current.enter(task, request)
    task_id, args, kwargs = request.id or "", request.args, request.kwargs
    ended: Ended | None = None
    try:
        signals.task_prerun.send(task, task_id=task_id, task=task, args=args, kwargs=kwargs)
        began_at = time.monotonic()
        ended = _run(task, request, args, kwargs)
        runtime_s = time.monotonic() - began_at
        if ended.state in (IGNORED, REJECTED):
            return ended
        if ended.state == SUCCESS and request.callbacks:
            ended = _linked(task, request, ended)
        ended = _stored(task, request, ended)
        _follow(task, request, ended, runtime_s)
        if ended.state != RETRY:
            with _harmless(task, request):
                task.after_return(ended.state, ended.value, task_id, args, kwargs, ended.info)
        return ended
    finally:
        state, value = (ended.state, ended.value) if ended is not None else (None, None)
        signals.task_postrun.send(task, task_id=task_id, task=task, args=args, kwargs=kwargs, retval=value, state=state)
        current.leave()


def conclude(task: Task, request: Context, ended: Ended) -> None:
    """Store and announce the outcome of a task that is not run."""
    current.enter(task, request)
    try:
        ended = _stored(task, request, ended)
        _follow(task, request, ended, 0.0)
    finally:
        current.leave()


@contextmanager
def _harmless(task: Task, request: Context) -> Iterator[None]:
    """Log an error of a hook that follows a run in a worker: the stored outcome does not change."""
    try:
        yield
    except BaseException as error:
        if request.delivered is None or not is_callers(error):
            raise
        log.exception("a hook of %s[%s] failed; the outcome of the task is stored", task.name, request.id)


def _run(task: Task, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Ended:
    if request.delivered is not None:
        request.delivered.started()
    try:
        task.before_start(request.id or "", args, kwargs)
        with request.delivered.watched() if request.delivered is not None else nullcontext():
            return Ended(SUCCESS, _call(task, request, args, kwargs))
    except Retry as again:
        return Ended(RETRY, again, ExceptionInfo.of_retry(again))
    except Reject as error:
        return Ended(REJECTED, error)
    except Ignore as error:
        return Ended(IGNORED, error)
    except BaseException as error:  # noqa: BLE001 (any error ends the run)
        return _failed(error)


def _failed(error: BaseException) -> Ended:
    """The outcome of a run that raised; an error that is meant for the process is raised again."""
    if (stop := stop_behind(error)) is not None:
        # The task may have caught it with `except BaseException` and raised another error.
        return Ended(stop.state, stop.error, ExceptionInfo(stop.error))
    if not is_callers(error):
        raise error
    if isinstance(error, SystemExit):
        error = WorkerLostError(f"the task asked its process to exit: {error!r}").with_traceback(error.__traceback__)
    return Ended(FAILURE, error, ExceptionInfo(error))


def _call(task: Task, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call the task by its `__call__`, which a base class may override."""
    request.is_calling = True
    try:
        return task(*args, **kwargs)
    finally:
        request.is_calling = False


def _linked(task: Task, request: Context, ended: Ended) -> Ended:
    """Send the links before the outcome is stored, because they are among the result's children.

    Their ids are derived from the task's, so that a repeated run does not send them twice.
    """
    try:
        for number, link in enumerate(request.callbacks or ()):
            signature = _signature(task, link)
            link_id = signature.id or str(uuid5(NAMESPACE_OID, f"{request.id}:link:{number}"))
            _send_link(request, signature, ended.value, task_id=link_id)
    except BaseException as error:  # noqa: BLE001 (a link that cannot be sent is a failure of the task, as in Celery)
        return _failed(error)
    return ended


def _stored(task: Task, request: Context, ended: Ended) -> Ended:
    """Store the outcome; a result that JSON cannot carry is a failure. A failure is logged first."""
    if ended.state == FAILURE:
        with _harmless(task, request):
            _log_failed(task, request, ended)
    if request.delivered is None:
        return ended
    try:
        request.delivered.ended(ended)
    except EncodeError as error:
        if ended.state == FAILURE:
            raise
        return _stored(task, request, Ended(FAILURE, error, ExceptionInfo(error)))
    return ended


def _follow(task: Task, request: Context, ended: Ended, runtime_s: float) -> None:
    """Call hooks, signals and links. A hook that fails does not stop the others."""
    task_id, args, kwargs, info = request.id or "", request.args, request.kwargs, ended.info
    if ended.state == SUCCESS:
        with _harmless(task, request):
            if request.delivered is not None:
                _log_succeeded(request, ended.value, runtime_s)
        with _harmless(task, request):
            task.on_success(ended.value, task_id, args, kwargs)
        signals.task_success.send(task, result=ended.value, runtime=runtime_s)
    elif ended.state == RETRY:
        with _harmless(task, request):
            task.on_retry(ended.value.exc, task_id, args, kwargs, info)
        signals.task_retry.send(task, request=request, reason=ended.value, einfo=info)
        log.info("Task %s[%s] retry: %s", task.name, task_id, ended.value)
    elif ended.state == REVOKED:
        signals.task_revoked.send(task, request=Request.of(request), terminated=True, signum=None, expired=False)
    elif ended.state == FAILURE:
        _follow_failure(task, request, ended)


def _follow_failure(task: Task, request: Context, ended: Ended) -> None:
    task_id, args, kwargs, info = request.id or "", request.args, request.kwargs, ended.info
    for link in request.errbacks or ():
        with _harmless(task, request):
            _call_back(task, request, link, ended)
    with _harmless(task, request):
        task.on_failure(ended.value, task_id, args, kwargs, info)
    signals.task_failure.send(
        task,
        task_id=task_id,
        exception=ended.value,
        args=args,
        kwargs=kwargs,
        traceback=info.tb if info else None,
        einfo=info,
    )


def _signature(task: Task, link: Any) -> Any:
    return maybe_signature(link, app=task.app)


def _call_back(task: Task, request: Context, link: Any, ended: Ended) -> None:
    """Call an error link with (request, exception, traceback) if it takes them; else send it with the id."""
    signature = _signature(task, link)
    known = task.app.tasks.get(signature.task)
    if known is not None and not signature.immutable and _most_positional(known.run) - len(signature.args) > 1:
        try:
            known(request, ended.value, ended.traceback, *signature.args, **signature.kwargs)
        except BaseException as error:
            if not is_callers(error):
                raise
            log.error("the error link %s of %s[%s] failed", signature.task, task.name, request.id, exc_info=True)
    else:
        _send_link(request, signature, request.id)


def _send_link(request: Context, link: Any, *args: Any, **options: Any) -> None:
    if request.delivered is not None:
        request.delivered.follow(link, *args, **options)
    else:
        link.apply_async(args, **options)


def _most_positional(function: Callable[..., Any]) -> float:
    """The largest number of positional arguments that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return math.inf
    return sum(1 for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))


# --- in place


def run_in_place(
    task: Task,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    throw: bool | None = None,
    retries: int = 0,
    **options: Any,
) -> EagerResult:
    """Run the task in this thread as a worker would, and again as often as it retries.

    Parameters:
      args, kwargs, options: as for `apply_async`.
      throw: raise the task's error; by default `task_eager_propagates`.
      retries: the number of runs before this one.
    """
    throws = task.app.conf.task_eager_propagates if throw is None else throw
    # Times and queues have no effect here; wrong ones are refused all the same.
    options.pop("propagate", None)  # `apply` accepts it, as Celery does; `get` uses it
    envelope = envelope_of(task.app, task.name, (), {}, options, task)
    request = _request(task, envelope, tuple(args or ()), dict(kwargs or {}), retries)
    while True:
        ended = trace(task, request)
        again = ended.value.sig if isinstance(ended.value, Retry) else None  # raised or returned
        if again is None:
            break
        request = _request(task, again, again.args, dict(again.kwargs), again.retries)
    if throws and ended.state in PROPAGATE_STATES:
        raise ended.value
    _keep_in_place(task, envelope, ended)
    state = {IGNORED: PENDING, REJECTED: PENDING}.get(ended.state, ended.state)
    return EagerResult(envelope.id, ended.value, state, ended.traceback, task.name)


def _request(task: Task, envelope: Envelope, args: Sequence[Any], kwargs: dict[str, Any], retries: int) -> Context:
    """The request of a run in place, where, as in Celery, arguments bypass JSON and time limits do not hold."""
    hard_s, soft_s = limits_of(envelope, task)
    return Context(
        envelope, args=args, kwargs=kwargs, retries=retries, is_eager=True, time_limit=hard_s, soft_time_limit=soft_s
    )


def _keep_in_place(task: Task, envelope: Envelope, ended: Ended) -> None:
    if task.app.conf.task_store_eager_result and not envelope.ignore_result:
        keep(task, envelope, ended)


# --- log lines


LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"

_strategy = logging.getLogger("celery.worker.strategy")
_trace = logging.getLogger("celery.app.trace")
_failures = logging.getLogger(TASK_FAILURES)
#: A longer result is cut (Celery's `resultrepr_maxsize`).
_MOST_CHARACTERS = 1024


def log_received(request: Context) -> None:
    """Log that a worker has received the task."""
    if _strategy.isEnabledFor(logging.INFO):
        about = _about(request, eta=request.eta)
        _strategy.info(LOG_RECEIVED, about, extra={"data": about})


def _log_succeeded(request: Context, value: Any, runtime_s: float) -> None:
    """Log the return value."""
    if _trace.isEnabledFor(logging.INFO):
        text = repr(value)
        text = text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
        about = _about(request, return_value=text, runtime=runtime_s)
        _trace.info(LOG_SUCCESS, about, extra={"data": about})


def _log_failed(task: Task, request: Context, ended: Ended) -> None:
    """Log the final failure, with its traceback unless the task `throws` the error."""
    expected = isinstance(ended.value, tuple(task.throws))
    level, description = (logging.INFO, "raised expected") if expected else (logging.ERROR, "raised unexpected")
    if _failures.isEnabledFor(level):
        trouble = None if expected or ended.info is None else (ended.info.type, ended.value, ended.info.tb)
        about = _about(request, description=description, exc=repr(ended.value))
        _failures.log(level, LOG_FAILURE, about, exc_info=trouble, extra={"data": about})


def _about(request: Context, **more: Any) -> dict[str, Any]:
    return {
        "id": request.id,
        "name": request.shadow or request.task,
        "args": request.argsrepr,
        "kwargs": request.kwargsrepr,
        **more,
    }

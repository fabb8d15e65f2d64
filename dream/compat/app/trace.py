"""One run of a caller's own task, in a worker or in place: hooks and signals around it, and what came of it.

before_start, task_prerun ─► run ─┬─► returned  ─► SUCCESS: links, on_success, task_success
                                  ├─► Retry     ─► RETRY: on_retry, task_retry
                                  ├─► Ignore    ─► nothing is stored
                                  ├─► Reject    ─► the message goes to the dead letters, or back
                                  └─► raised    ─► FAILURE: error links, on_failure, task_failure
after_return (not where a retry follows), task_postrun

In a worker an error need not be an `Exception`: `sys.exit()` in a task is the failure of that task.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

from dream.compat import current, signals
from dream.compat.app import run_log
from dream.compat.app.arguments import most_positional
from dream.compat.app.run_log import LOG_FAILURE, LOG_RECEIVED, LOG_SUCCESS
from dream.compat.exceptions import EncodeError, Ignore, Reject, Retry, WorkerLostError
from dream.compat.states import FAILURE, IGNORED, REJECTED, RETRY, REVOKED, SUCCESS
from dream.compat.stopping import is_callers, stop_behind
from dream.compat.worker.request import Request

if TYPE_CHECKING:
    from dream.compat.app.context import Context
    from dream.compat.app.task import Task

__all__ = [
    "LOG_FAILURE",
    "LOG_RECEIVED",
    "LOG_SUCCESS",
    "Ended",
    "ExceptionInfo",
    "conclude",
    "trace",
]


log = logging.getLogger(__name__)


class ExceptionInfo:
    """An error and where it came from, as hooks and signals get it: `exception`, `type`, `traceback`, `tb`.

    Where billiard is loaded, `isinstance` takes it for billiard's `ExceptionInfo`, because libraries test that first.
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
    """What came of a run.

    Parameters:
      state: one of `dream.compat.states`.
      value: what the task returned, or the error.
      info: of the error.
    """

    state: str
    value: Any = None
    info: ExceptionInfo | None = None

    @property
    def traceback(self) -> str | None:
        return self.info.traceback if self.info is not None else None


def trace(task: Task, request: Context) -> Ended:
    """Run the task, and say what came of it. Only what is no error of a task goes through."""
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
        ended = _told(task, request, ended)
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
    """Say what came of a task that is not run."""
    current.enter(task, request)
    try:
        ended = _told(task, request, ended)
        _follow(task, request, ended, 0.0)
    finally:
        current.leave()


@contextmanager
def _harmless(task: Task, request: Context) -> Iterator[None]:
    """Log an error of a hook that follows a run in a worker: the kept end of the run does not change."""
    try:
        yield
    except BaseException as error:
        if request.delivered is None or not is_callers(error):
            raise
        log.exception("a hook of %s[%s] failed; what came of the task is kept", task.name, request.id)


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
    except BaseException as error:  # noqa: BLE001 (whatever a task raises is its end)
        return _failed(error)


def _failed(error: BaseException) -> Ended:
    """The end of a run that raised; an error that is meant for the process is raised again."""
    if (stop := stop_behind(error)) is not None:
        # Another error may cover it: the task has raised that from `except BaseException`.
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
    """Send the links, before the end is kept: they are among the result's children.

    Their ids follow from the task's: where the run is repeated, the broker holds each once.
    """
    try:
        for number, link in enumerate(request.callbacks or ()):
            signature = _signature(task, link)
            link_id = signature.id or str(uuid5(NAMESPACE_OID, f"{request.id}:link:{number}"))
            _send(request, signature, ended.value, task_id=link_id)
    except BaseException as error:  # noqa: BLE001 (a link that cannot be sent is a failure of the task, as in Celery)
        return _failed(error)
    return ended


def _told(task: Task, request: Context, ended: Ended) -> Ended:
    """Keep what came of it; a result that JSON cannot carry is a failure. The log has one before others hear of it."""
    if ended.state == FAILURE:
        with _harmless(task, request):
            run_log.failed(task, request, ended)
    if request.delivered is None:
        return ended
    try:
        request.delivered.ended(ended)
    except EncodeError as error:
        if ended.state == FAILURE:
            raise
        return _told(task, request, Ended(FAILURE, error, ExceptionInfo(error)))
    return ended


def _follow(task: Task, request: Context, ended: Ended, runtime_s: float) -> None:
    """Call hooks, signals and links. One that fails does not stop the others."""
    task_id, args, kwargs, info = request.id or "", request.args, request.kwargs, ended.info
    if ended.state == SUCCESS:
        with _harmless(task, request):
            if request.delivered is not None:
                run_log.succeeded(request, ended.value, runtime_s)
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
    from dream.compat.canvas import maybe_signature

    return maybe_signature(link, app=task.app)


def _call_back(task: Task, request: Context, link: Any, ended: Ended) -> None:
    """An error link: called here with (request, exception, traceback) where it takes them, else sent the id."""
    signature = _signature(task, link)
    known = task.app.tasks.get(signature.task)
    if known is not None and not signature.immutable and most_positional(known.run) - len(signature.args) > 1:
        try:
            known(request, ended.value, ended.traceback, *signature.args, **signature.kwargs)
        except BaseException as error:
            if not is_callers(error):
                raise
            log.error("the error link %s of %s[%s] failed", signature.task, task.name, request.id, exc_info=True)
    else:
        _send(request, signature, request.id)


def _send(request: Context, link: Any, *args: Any, **options: Any) -> None:
    if request.delivered is not None:
        request.delivered.follow(link, *args, **options)
    else:
        link.apply_async(args, **options)

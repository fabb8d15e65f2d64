"""The lines of a worker's log that tell of a run, as Celery has them: its words, its loggers, and the task as `data`.

celery.worker.strategy   INFO    received
celery.app.trace         INFO    succeeded
celery.app.trace.dream   INFO    raised what the task `throws`
                         ERROR   raised anything else

Failures have a logger of their own below Celery's: Sentry ignores Celery's own where Celery is installed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dream.log import TASK_FAILURES

if TYPE_CHECKING:
    from dream.compat.app.context import Context
    from dream.compat.app.task import Task
    from dream.compat.app.trace import Ended

__all__ = ["LOG_FAILURE", "LOG_RECEIVED", "LOG_SUCCESS", "failed", "received", "succeeded"]

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"

_strategy = logging.getLogger("celery.worker.strategy")
_trace = logging.getLogger("celery.app.trace")
_failures = logging.getLogger(TASK_FAILURES)
#: A result that is longer is cut (Celery's `resultrepr_maxsize`).
_MOST_CHARACTERS = 1024


def received(request: Context) -> None:
    """A worker has the task."""
    if _strategy.isEnabledFor(logging.INFO):
        about = _about(request, eta=request.eta)
        _strategy.info(LOG_RECEIVED, about, extra={"data": about})


def succeeded(request: Context, value: Any, runtime_s: float) -> None:
    """It has returned."""
    if _trace.isEnabledFor(logging.INFO):
        text = repr(value)
        text = text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
        about = _about(request, return_value=text, runtime=runtime_s)
        _trace.info(LOG_SUCCESS, about, extra={"data": about})


def failed(task: Task, request: Context, ended: Ended) -> None:
    """It has failed for good; with its traceback, unless the task is known to throw this."""
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

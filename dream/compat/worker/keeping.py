"""What is kept of a caller's own task: its state and result, as Celery keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream.compat.app.context import Context
from dream.compat.app.trace import Ended
from dream.compat.exceptions import EncodeError
from dream.compat.failures import write_error
from dream.compat.worker.patience import patiently
from dream.results import meta_of
from dream.results.states import EXCEPTION_STATES

if TYPE_CHECKING:
    from dream.compat.app.task import Task
    from dream.compat.envelope import Envelope

__all__ = ["keep"]


def keep(task: Task, envelope: Envelope, ended: Ended, request: Context | None = None) -> None:
    """Keep a state, where one is wanted.

    Parameters:
      request: of the run, where there was one: the tasks that it has sent are kept as the result's children.

    Raises:
      EncodeError: JSON cannot carry the result.
      ResultsUnavailable: Redis was away for a minute.
    """
    if not _is_wanted(task, envelope, ended.state):
        return
    value = ended.value
    if ended.state in EXCEPTION_STATES:
        value = write_error(getattr(value, "exc", None) or value)
    more: dict[str, Any] = {}
    if task.app.conf.result_extended:
        more = {
            "name": envelope.task,
            "args": list(envelope.args),
            "kwargs": dict(envelope.kwargs),
            "retries": envelope.retries,
            "queue": envelope.queue,
        }
    meta = meta_of(
        envelope.id,
        ended.state,
        value,
        traceback=ended.traceback,
        children=request.children if request is not None else (),
        **more,
    )
    try:
        patiently(lambda: task.app.producer.results.put(meta))
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{envelope.task}: its result cannot be kept: {error}") from error


def _is_wanted(task: Task, envelope: Envelope, state: str) -> bool:
    if not envelope.ignore_result:
        return True
    errors = task.store_errors_even_if_ignored
    errors = task.app.conf.task_store_errors_even_if_ignored if errors is None else errors
    return bool(errors) and state in EXCEPTION_STATES

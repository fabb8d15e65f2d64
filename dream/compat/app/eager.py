"""A task that is run where it is called, as a worker would: `apply`, and `apply_async` with `task_always_eager`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.compat.app.context import Context
from dream.compat.app.envelopes import envelope_of, limits_of
from dream.compat.app.trace import Ended, trace
from dream.compat.exceptions import Retry
from dream.compat.result import EagerResult
from dream.compat.states import IGNORED, PENDING, PROPAGATE_STATES, REJECTED

if TYPE_CHECKING:
    from dream.compat.app.task import Task
    from dream.compat.envelope import Envelope

__all__ = ["apply"]


def apply(
    task: Task,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    throw: bool | None = None,
    retries: int = 0,
    **options: Any,
) -> EagerResult:
    """Run the task here, and again as often as it retries.

    Parameters:
      args, kwargs, options: as for `apply_async`.
      throw: raise what the task raises; by default `task_eager_propagates`.
      retries: how many runs came before.
    """
    throws = task.app.conf.task_eager_propagates if throw is None else throw
    # Times and queues mean nothing here; wrong ones are wrong nevertheless.
    options.pop("propagate", None)  # `get` takes it, `apply` does not look at it
    envelope = envelope_of(task.app, task.name, (), {}, options, task)
    request = _request(task, envelope, tuple(args or ()), dict(kwargs or {}), retries)
    while True:
        ended = trace(task, request)
        again = ended.value.sig if isinstance(ended.value, Retry) else None  # raised, or returned
        if again is None:
            break
        request = _request(task, again, again.args, dict(again.kwargs), again.retries)
    if throws and ended.state in PROPAGATE_STATES:
        raise ended.value
    _keep(task, envelope, ended)
    state = {IGNORED: PENDING, REJECTED: PENDING}.get(ended.state, ended.state)
    return EagerResult(envelope.id, ended.value, state, ended.traceback, task.name)


def _request(task: Task, envelope: Envelope, args: Sequence[Any], kwargs: dict[str, Any], retries: int) -> Context:
    """As in Celery, arguments are not copied through JSON, and time limits are shown and do not hold."""
    hard_s, soft_s = limits_of(envelope, task)
    return Context(
        envelope, args=args, kwargs=kwargs, retries=retries, is_eager=True, time_limit=hard_s, soft_time_limit=soft_s
    )


def _keep(task: Task, envelope: Envelope, ended: Ended) -> None:
    if task.app.conf.task_store_eager_result and not envelope.ignore_result:
        from dream.compat.worker.keeping import keep

        keep(task, envelope, ended)

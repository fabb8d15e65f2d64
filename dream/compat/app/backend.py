"""Stored results of tasks: `keep` stores the outcome of a run, `app.backend` reads and writes results by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.exceptions import EncodeError
from dream.compat.failures import write_error
from dream.compat.refused import refuse
from dream.work.results import EXCEPTION_STATES, FAILURE, SUCCESS

if TYPE_CHECKING:
    from redis import Redis

    from dream.compat.app.base import Celery
    from dream.compat.app.context import Context
    from dream.compat.app.task import Task
    from dream.compat.app.trace import Ended
    from dream.compat.envelope import Envelope

__all__ = ["Backend", "keep"]


class Backend:
    """The stored results of tasks. `AsyncResult` shows the result of one task, and waits for it.

    Parameters:
      app: the app whose servers have them.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """The stored result of a task: `status`, `result` and others; PENDING and None if there is none.

        Raises:
          ResultsUnavailable
        """
        return self.app.AsyncResult(task_id)._get_task_meta()

    def get_state(self, task_id: str) -> str:
        """See `AsyncResult.state`."""
        return self.app.AsyncResult(task_id).state

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """See `AsyncResult.result`."""
        return self.app.AsyncResult(task_id).result

    def get_traceback(self, task_id: str) -> str | None:
        """See `AsyncResult.traceback`."""
        return self.app.AsyncResult(task_id).traceback

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_how: Any
    ) -> Any:
        """Store a state with its result; a stored SUCCESS is not replaced. Returns the result.

        Parameters:
          request: the run whose sub-tasks are the result's children.

        Raises:
          TypeError, ValueError: JSON cannot carry the result.
          ResultsUnavailable
        """
        from dream.work.results import meta_of

        is_error = state in EXCEPTION_STATES and isinstance(result, BaseException)
        kept = write_error(result) if is_error else result
        children = request.children if request is not None else ()
        self.app.servers.results.put(meta_of(task_id, state, kept, traceback=traceback, children=children))
        return result

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, **_how: Any) -> None:
        """Store that a task has succeeded; its links are not sent."""
        self.store_result(task_id, result, SUCCESS, request=request)

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: str | None = None, request: Any = None, **_how: Any
    ) -> None:
        """Store that a task has failed; its error links are not sent."""
        self.store_result(task_id, exc, FAILURE, traceback=traceback, request=request)

    def forget(self, task_id: str) -> None:
        """See `AsyncResult.forget`."""
        self.app.AsyncResult(task_id).forget()

    @property
    def client(self) -> Redis:
        """The client of the Redis with the results."""
        return self.app.servers.results.client

    def ensure_chords_allowed(self) -> NoReturn:
        refuse("chord")

    def __repr__(self) -> str:
        return f"<Backend of {self.app!r}>"


def keep(task: Task, envelope: Envelope, ended: Ended, request: Context | None = None) -> None:
    """Store a state, unless the task ignores its results.

    Parameters:
      request: of the run, if there was one; the tasks that it has sent become the result's children.

    Raises:
      EncodeError: JSON cannot carry the result.
      ResultsUnavailable: Redis was away for a minute.
    """
    from dream.work.patience import for_a_minute
    from dream.work.results import meta_of

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
        for_a_minute(lambda: task.app.servers.results.put(meta))
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{envelope.task}: its result cannot be kept: {error}") from error


def _is_wanted(task: Task, envelope: Envelope, state: str) -> bool:
    if not envelope.ignore_result:
        return True
    errors = task.store_errors_even_if_ignored
    errors = task.app.conf.task_store_errors_even_if_ignored if errors is None else errors
    return bool(errors) and state in EXCEPTION_STATES

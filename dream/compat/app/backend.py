"""`app.backend`: what is kept of tasks, asked and written by id, as code that was written for Celery does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.work_flows import refuse
from dream.results.states import EXCEPTION_STATES, FAILURE, SUCCESS

if TYPE_CHECKING:
    from redis import Redis

    from dream.compat.app.base import Celery

__all__ = ["Backend"]


class Backend:
    """The results of tasks. `AsyncResult` says the same of one task, and waits for its end.

    Parameters:
      app: whose configuration says where they are.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """What is kept of a task: `status`, `result` and others; PENDING and None where nothing is.

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
        """Keep a state and what belongs to it; a SUCCESS that is kept stays. Returns the result.

        Parameters:
          request: the run whose sub-tasks are the result's children.

        Raises:
          TypeError, ValueError: JSON cannot carry the result.
          ResultsUnavailable
        """
        from dream.compat.failures import write_error
        from dream.results import meta_of

        is_error = state in EXCEPTION_STATES and isinstance(result, BaseException)
        kept = write_error(result) if is_error else result
        children = request.children if request is not None else ()
        self.app.producer.results.put(meta_of(task_id, state, kept, traceback=traceback, children=children))
        return result

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, **_how: Any) -> None:
        """Keep that a task has succeeded; its links are not sent."""
        self.store_result(task_id, result, SUCCESS, request=request)

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: str | None = None, request: Any = None, **_how: Any
    ) -> None:
        """Keep that a task has failed; its error links are not sent."""
        self.store_result(task_id, exc, FAILURE, traceback=traceback, request=request)

    def forget(self, task_id: str) -> None:
        """See `AsyncResult.forget`."""
        self.app.AsyncResult(task_id).forget()

    @property
    def client(self) -> Redis:
        """The Redis that keeps results."""
        return self.app.producer.results.client

    def ensure_chords_allowed(self) -> NoReturn:
        refuse("chord")

    def __repr__(self) -> str:
        return f"<Backend of {self.app!r}>"

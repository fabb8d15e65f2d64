"""What became of a task, read from its row: its id alone finds it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dream.compat import exceptions
from dream.compat.exceptions import TaskError, TaskRevokedError
from dream.errors import DatabaseUnavailable
from dream.messages import TaskState

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.db import DreamTask

__all__ = ["FAILURE", "PENDING", "RETRY", "REVOKED", "STARTED", "SUCCESS", "AsyncResult"]

PENDING = "PENDING"
STARTED = "STARTED"
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"

_STATES = {
    TaskState.QUEUED: PENDING,
    TaskState.RUNNING: STARTED,
    TaskState.SUCCEEDED: SUCCESS,
    TaskState.FAILED: FAILURE,
    TaskState.REVOKED: REVOKED,
}
_FIRST_INTERVAL_S = 0.05
_INTERVAL_GROWTH = 1.5
_LONGEST_INTERVAL_S = 1.0


class AsyncResult:
    """The result of a task, now or later.

    Parameters:
      id: the task's.
      app: the app that sent it, where one did.
    """

    def __init__(self, id: str, app: Celery | None = None) -> None:  # noqa: A002 (Celery's name)
        if not id:
            raise ValueError(f"a result needs the id of a task, not {id!r}")
        self.id = id
        self.app = app

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def state(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED; a task that nobody has heard of is PENDING."""
        return _state_of(self._row())

    status = state

    @property
    def result(self) -> Any:
        """What the task returned; the error where it failed; None before."""
        return _result_of(self._row())

    def get(self, timeout: float | None = None, propagate: bool = True, interval: float | None = None) -> Any:
        """Wait for the end of the task.

        Parameters:
          timeout: seconds; None waits for as long as it takes.
          propagate: raise the task's error; False returns it.
          interval: seconds between two looks; by default they grow from 0.05 to 1.

        Raises:
          exceptions.TimeoutError: it has not ended in time.
          TaskError: it failed; the message is its error.
          DatabaseUnavailable
        """
        give_up = time.monotonic() + timeout if timeout is not None else None
        pause_s = interval or _FIRST_INTERVAL_S
        while not _is_over(row := self._row()):
            left_s = give_up - time.monotonic() if give_up is not None else pause_s
            if left_s <= 0:
                raise exceptions.TimeoutError(f"task {self.id} has not ended within {timeout:g} s")
            time.sleep(min(pause_s, left_s))
            if interval is None:
                pause_s = min(pause_s * _INTERVAL_GROWTH, _LONGEST_INTERVAL_S)
        result = _result_of(row)
        if propagate and isinstance(result, TaskError):
            raise result
        return result

    def ready(self) -> bool:
        """Whether the task has ended."""
        return _is_over(self._row())

    def successful(self) -> bool:
        return self.state == SUCCESS

    def failed(self) -> bool:
        return self.state == FAILURE

    def _row(self) -> DreamTask | None:
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask
        from dream.producer import default

        try:
            with default().database.read() as session:
                return session.get(DreamTask, self.id)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"the task's row cannot be read: {type(error).__name__}") from error

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, AsyncResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def _is_over(row: DreamTask | None) -> bool:
    return row is not None and row.state.is_terminal


def _state_of(row: DreamTask | None) -> str:
    if row is None:
        return PENDING
    return RETRY if row.state is TaskState.QUEUED and row.attempts else _STATES[row.state]


def _result_of(row: DreamTask | None) -> Any:
    if row is None or not row.state.is_terminal:
        return None
    if row.state is TaskState.REVOKED:
        return TaskRevokedError(row.error)
    return TaskError(row.error) if row.state is TaskState.FAILED else row.result

"""What became of a task: its id alone finds it.

    Redis  celery-task-meta-<id>   in Celery's form: the end of every task, whoever ran it
    row                            of a task of ours: asked where Redis has nothing, or is away

A wait ends when the end is published. Where that word is lost (Redis was away), it ends at a look that comes at least
once a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dream.blocking import warn_on_loop
from dream.compat import exceptions
from dream.compat.current import app_or_default
from dream.compat.joining import allow_join_result, assert_will_not_block, denied_join_result
from dream.compat.outcome import Outcome, is_end
from dream.errors import ResultsUnavailable
from dream.results.states import FAILURE, PENDING, PROPAGATE_STATES, RETRY, REVOKED, STARTED, SUCCESS

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.compat.app.backend import Backend
    from dream.results import Meta, ResultStore, Waiter

__all__ = [
    "FAILURE",
    "PENDING",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "denied_join_result",
    "result_from_tuple",
]

_FIRST_INTERVAL_S = 0.05
_INTERVAL_GROWTH = 1.5
_LONGEST_INTERVAL_S = 1.0


class AsyncResult(Outcome):
    """The result of a task, now or later.

    Parameters:
      id: the task's.
      backend: the `backend` of the app whose servers keep the result.
      task_name, parent: as in Celery; without effect, but `parent` is kept.
      app: that app itself; by default the current one.
      has_row: whether it is a task of ours, which has a row; None where that is not known.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 (Celery's name)
        backend: object = None,
        task_name: str | None = None,  # noqa: ARG002
        app: Celery | None = None,
        parent: AsyncResult | None = None,
        *,
        has_row: bool | None = None,
    ) -> None:
        if not id:
            raise ValueError(f"a result needs the id of a task, not {id!r}")
        self.id = str(id)
        self.app = app_or_default(app or getattr(backend, "app", None))
        self.parent = parent
        self.ignored = False
        self._has_row = has_row
        self._end: Meta | None = None

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        *,
        callback: Callable[[str, Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
        **_how: Any,
    ) -> Any:
        """Wait for the end of the task.

        Parameters:
          timeout: seconds; None waits for as long as it takes.
          propagate: raise the task's error; False returns it.
          interval: seconds between two looks, in case the word of its end is lost; by default they grow to 1.
          callback: called with the id and the result.
          on_interval: called at every look.
          disable_sync_subtasks: False allows it inside a task.

        Raises:
          exceptions.TimeoutError: it has not ended in time.
          Exception: the task's own error, as its own class where that is to be had, else a `TaskError`.
          RuntimeError: it is called inside a task.
          ResultsUnavailable, DatabaseUnavailable
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            assert_will_not_block()
        if not is_end(self._look()):
            self._wait(timeout, interval, on_interval)
        return self.maybe_throw(propagate, callback)

    wait = get

    def _wait(self, timeout: float | None, interval: float | None, on_interval: Callable[[], object] | None) -> None:
        warn_on_loop("AsyncResult.get")
        give_up = time.monotonic() + timeout if timeout is not None else None
        pause_s = interval or _FIRST_INTERVAL_S
        with self._listening() as waiter:
            while not is_end(self._look()):
                if on_interval is not None:
                    on_interval()
                left_s = give_up - time.monotonic() if give_up is not None else pause_s
                if left_s <= 0:
                    raise exceptions.TimeoutError(f"task {self.id} has not ended within {timeout:g} s")
                _pause(waiter, min(pause_s, left_s))
                if interval is None:
                    pause_s = min(pause_s * _INTERVAL_GROWTH, _LONGEST_INTERVAL_S)

    @contextmanager
    def _listening(self) -> Iterator[Waiter | None]:
        with ExitStack() as stack:
            try:
                waiter = stack.enter_context(self._results().waiting(self.id))
            except ResultsUnavailable:
                waiter = None
            yield waiter

    def forget(self) -> None:
        """Keep nothing of it in Redis any longer; a row of ours stays."""
        self._end = None
        self._results().forget(self.id)

    def revoke(self, connection: object = None, terminate: bool = False, **how: Any) -> None:  # noqa: ARG002
        """Do not run it; with `terminate`, stop it where it runs. See `control.revoke`."""
        self.app.control.revoke(self.id, terminate=terminate, **how)

    # --- where it is read

    @property
    def backend(self) -> Backend:
        """The backend of its app."""
        return self.app.backend

    def _results(self) -> ResultStore:
        return self.app.producer.results

    def _look(self) -> Meta | None:
        if self._end is not None:
            return self._end
        try:
            meta = self._results().get(self.id)
        except ResultsUnavailable:
            meta = self._row()
            if meta is None:
                raise
        else:
            meta = meta or self._row()
        if is_end(meta):
            self._end = meta
        return meta

    def _row(self) -> Meta | None:
        if self._has_row is False:
            return None
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask
        from dream.db.faults import explain
        from dream.outcomes import kept_of, kept_of_pictures

        database = self.app.producer.database
        try:
            with database.read() as session:
                task = session.get(DreamTask, self.id)
                # Rows of ended tasks are removed after their time; an upload's pictures still tell its result.
                return kept_of(task) if task is not None else kept_of_pictures(session, self.id)
        except SQLAlchemyError as error:
            if database.is_bare():
                return None
            raise explain(error, "the task's row cannot be read") from error


class EagerResult(Outcome):
    """The result of a task that has run here and now.

    Parameters:
      id: the task's.
      ret_value: what it returned, or the error.
      state: how it ended.
      traceback: of the error.
      name: the task's.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 (Celery's name)
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.parent = None
        self._value = ret_value
        self._state = state
        self._traceback = traceback

    @property
    def result(self) -> Any:
        return self._value

    info = result

    def get(self, timeout: float | None = None, propagate: bool = True, **how: Any) -> Any:  # noqa: ARG002
        """What it returned; an error is raised, unless `propagate` is False."""
        if how.get("disable_sync_subtasks", True):
            assert_will_not_block()
        if self._state not in PROPAGATE_STATES or not propagate:
            return self._value
        raise self._value if isinstance(self._value, Exception) else Exception(self._value)

    wait = get

    def forget(self) -> None:
        """Nothing is kept of it."""

    def revoke(self, *_how: Any, **_more: Any) -> None:
        """It has run; say so from now on, as Celery does."""
        self._state, self._traceback = REVOKED, None
        self._value = exceptions.TaskRevokedError("revoked")

    def _look(self) -> Meta:
        from dream.results import meta_of

        return meta_of(self.id, self._state, self._value, traceback=self._traceback)


#: The common base of all results.
ResultBase = Outcome


class ResultSet(Outcome):
    """Refused: use a list of `AsyncResult`. The class is there for `isinstance` and for imports."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise exceptions.Unsupported(f"{type(self).__name__} is not supported: keep a list of AsyncResult")


class GroupResult(ResultSet):
    """Refused: use a list of `AsyncResult`."""

    @classmethod
    def restore(cls, id: str, *_: Any, **__: Any) -> GroupResult:  # noqa: A002 (Celery's name)
        """Refused: groups are not kept."""
        raise exceptions.Unsupported(f"GroupResult.restore({id!r}) is not supported: keep the ids of its tasks")


def result_from_tuple(written: Sequence[Any], app: Celery | None = None) -> AsyncResult:
    """The result that was written as `[[id, parent], children]`; groups, which have children, are not supported."""
    result: Any = written[0]
    if isinstance(result, str):
        return AsyncResult(result, app=app)
    task_id, parent = result
    return AsyncResult(task_id, app=app, parent=result_from_tuple(parent, app) if parent else None)


def _pause(waiter: Waiter | None, pause_s: float) -> None:
    """Until something is said, at most for that long."""
    begun = time.monotonic()
    try:
        if waiter is not None:
            waiter.wait(pause_s)
            return
    except ResultsUnavailable:
        pass  # it comes back, or the row says it
    time.sleep(max(0.0, pause_s - (time.monotonic() - begun)))

"""Results of tasks, found by the task's id alone.

    Redis  celery-task-meta-<id>   in Celery's form: the outcome of every task, from any worker
    row                            of dream's own task: read if Redis has nothing, or is away

A wait ends when the outcome is published. If that message is lost because Redis was away, the wait ends at the next
look, at most a second later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from dream.blocking import warn_on_loop
from dream.compat import exceptions
from dream.compat.current import app_or_default
from dream.compat.failures import is_in_worker, read_error
from dream.compat.host import host
from dream.compat.refused import RESULT, RESULT_SETS, refuse, refuse_attribute
from dream.errors import ResultsUnavailable
from dream.work.results import (
    EXCEPTION_STATES,
    FAILURE,
    PENDING,
    PROPAGATE_STATES,
    READY_STATES,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
)

if TYPE_CHECKING:
    from dream.compat.app.backend import Backend
    from dream.compat.app.base import Celery
    from dream.work.results import Meta, ResultStore, Waiter

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
    "Outcome",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "is_end",
    "result_from_tuple",
    "result_of",
    "task_join_will_block",
]

# --- waiting inside a task


_will_block: ContextVar[bool | None] = ContextVar("dream_join_will_block", default=None)


def task_join_will_block() -> bool:
    """Whether a task runs in this thread and may not wait for a result: it holds the thread that the other needs."""
    is_set = _will_block.get()
    return is_in_worker() if is_set is None else is_set


def assert_will_not_block() -> None:
    """Refuse to wait in a task.

    Raises:
      RuntimeError
    """
    if task_join_will_block():
        raise RuntimeError(
            "never call result.get() within a task: it may wait for ever for its own thread; "
            "link the next task, or use `with allow_join_result():`"
        )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let the code inside wait for results, at its own risk."""
    with _will_be(False):
        yield


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse to let the code inside wait for results; used around a task that runs in place."""
    with _will_be(True):
        yield


@contextmanager
def _will_be(will_block: bool) -> Iterator[None]:
    token = _will_block.set(will_block)
    try:
        yield
    finally:
        _will_block.reset(token)


# --- results


class Outcome:
    """The base of all results. A subclass defines `_look`, which reads the stored outcome."""

    TimeoutError = exceptions.TimeoutError
    id: str

    def _look(self) -> Meta | None:
        raise NotImplementedError

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def state(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state that the task has set itself.

        An unknown task is PENDING.
        """
        meta = self._look()
        return meta["status"] if meta else PENDING

    status = state

    @property
    def result(self) -> Any:
        """The value that the task returned, or the error of a failure, a revocation or a retry; None before."""
        return result_of(self._look())

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of the error, if it is known."""
        meta = self._look()
        return meta["traceback"] if meta else None

    @property
    def children(self) -> list[AsyncResult]:
        """The tasks that it has sent."""
        meta = self._look()
        return [
            result_from_tuple(child, getattr(self, "app", None)) for child in (meta["children"] if meta else None) or ()
        ]

    @property
    def date_done(self) -> datetime | None:
        """The time of its end."""
        meta = self._look()
        return datetime.fromisoformat(meta["date_done"]) if meta and meta["date_done"] else None

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in READY_STATES

    def successful(self) -> bool:
        return self.state == SUCCESS

    def failed(self) -> bool:
        return self.state == FAILURE

    def _get_task_meta(self) -> dict[str, Any]:
        """The whole stored result, with `result` as the property gives it; libraries call this name."""
        meta = self._look()
        return {**meta, "result": self.result} if meta else {"status": PENDING, "result": None}

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None) -> Any:
        """The value that the task has returned by now; its error is raised, unless `propagate` is False."""
        meta = self._look()
        result = result_of(meta)
        if propagate and meta and meta["status"] in PROPAGATE_STATES:
            raise result if result is not None else exceptions.TaskError("it has ended so, and its error is not stored")
        if callback is not None:
            callback(self.id, result)
        return result

    maybe_reraise = maybe_throw

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """The result as messages and results store it, with the result of its parent, if that is known."""
        parent = getattr(self, "parent", None)
        return (self.id, parent.as_tuple() if parent is not None else None), None

    def as_list(self) -> list[str]:
        """Its id, then the ids of its parent and its parent's parents, as far as they are known."""
        parent = getattr(self, "parent", None)
        return [self.id, *(parent.as_list() if parent is not None else ())]

    def __getattr__(self, name: str) -> Any:
        # Fields of Celery's `result_extended`; None if the worker has not written them.
        if name not in {"name", "args", "kwargs", "worker", "retries", "queue", "parent_id", "group_id"}:
            return refuse_attribute(type(self).__name__, RESULT, name, self)
        meta: Any = self._look()
        return meta.get(name) if meta else None

    def __str__(self) -> str:
        return str(self.id)  # a library makes an `EagerResult` without one

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.id == other
        return self.id == other.id if isinstance(other, Outcome) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def is_end(meta: Meta | None) -> bool:
    return meta is not None and meta["status"] in READY_STATES


def result_of(meta: Meta | None) -> Any:
    if meta is None:
        return None
    if meta["status"] in EXCEPTION_STATES and not isinstance(meta["result"], BaseException):
        return read_error(meta["result"])
    return meta["result"]


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
      has_row: whether it is one of dream's own tasks, which has a row; None if that is not known.
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
          timeout: seconds; None means no limit.
          propagate: raise the task's error; False returns it.
          interval: seconds between two looks, in case the published message is lost; by default they grow to 1.
          callback: called with the id and the result.
          on_interval: called at every look.
          disable_sync_subtasks: False allows it inside a task.

        Raises:
          exceptions.TimeoutError: it has not ended in time.
          Exception: the task's own error: of its own class if that is loaded, else a `TaskError`.
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
        """Delete it from Redis; a row stays."""
        self._end = None
        self._results().forget(self.id)

    def revoke(self, connection: object = None, terminate: bool = False, **how: Any) -> None:  # noqa: ARG002
        """Revoke the task; with `terminate`, also end its run. See `control.revoke`."""
        self.app.control.revoke(self.id, terminate=terminate, **how)

    # --- its backend

    @property
    def backend(self) -> Backend:
        """The backend of its app."""
        return self.app.backend

    def _results(self) -> ResultStore:
        return self.app.servers.results

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
        return None if self._has_row is False else host().find(self.app, self.id)


class EagerResult(Outcome):
    """The result of a task that has run in this process.

    Parameters:
      id: the task's.
      ret_value: its return value, or its error.
      state: its state at the end.
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
        """The return value; an error is raised, unless `propagate` is False."""
        if how.get("disable_sync_subtasks", True):
            assert_will_not_block()
        if self._state not in PROPAGATE_STATES or not propagate:
            return self._value
        raise self._value if isinstance(self._value, Exception) else Exception(self._value)

    wait = get

    def forget(self) -> None:
        """Do nothing: it is not stored."""

    def revoke(self, *_how: Any, **_more: Any) -> None:
        """Be REVOKED from now on, as in Celery, although it has run."""
        self._state, self._traceback = REVOKED, None
        self._value = exceptions.TaskRevokedError("revoked")

    def _look(self) -> Meta:
        from dream.work.results import meta_of

        return meta_of(self.id, self._state, self._value, traceback=self._traceback)


#: The common base of all results.
ResultBase = Outcome


class ResultSet(Outcome):
    """Refused: use a list of `AsyncResult`. The class is there for `isinstance` and for imports."""

    def __init__(self, *_: Any, **__: Any) -> None:
        refuse(type(self).__name__, table=RESULT_SETS)


class GroupResult(ResultSet):
    """Refused: use a list of `AsyncResult`."""

    @classmethod
    def restore(cls, *_: Any, **__: Any) -> NoReturn:
        """Refused: groups are not stored."""
        refuse("GroupResult.restore", table=RESULT_SETS)


def result_from_tuple(written: Sequence[Any], app: Celery | None = None) -> AsyncResult:
    """The result of its stored form `[[id, parent], children]`; groups, which have children, are not supported."""
    result: Any = written[0]
    if isinstance(result, str):
        return AsyncResult(result, app=app)
    task_id, parent = result
    return AsyncResult(task_id, app=app, parent=result_from_tuple(parent, app) if parent else None)


def _pause(waiter: Waiter | None, pause_s: float) -> None:
    """Wait for the published outcome, at most for that many seconds."""
    begun = time.monotonic()
    try:
        if waiter is not None:
            waiter.wait(pause_s)
            return
    except ResultsUnavailable:
        pass  # Redis comes back, or the row has the outcome
    time.sleep(max(0.0, pause_s - (time.monotonic() - begun)))

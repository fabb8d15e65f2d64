"""What every kind of result says of a task, wherever it reads it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dream.compat import exceptions
from dream.compat.failures import read_error
from dream.compat.refused import RESULT, refuse_attribute
from dream.results.states import EXCEPTION_STATES, FAILURE, PENDING, PROPAGATE_STATES, READY_STATES, SUCCESS

if TYPE_CHECKING:
    from dream.compat.result import AsyncResult
    from dream.results import Meta

__all__ = ["Outcome", "is_end", "result_of"]


class Outcome:
    """What results say, whatever they read it from."""

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

        A task that nobody has heard of is PENDING.
        """
        meta = self._look()
        return meta["status"] if meta else PENDING

    status = state

    @property
    def result(self) -> Any:
        """What the task returned; the error where it failed, was revoked or is retried; None before."""
        return result_of(self._look())

    info = result

    @property
    def traceback(self) -> str | None:
        """That of the error, where it is known."""
        meta = self._look()
        return meta["traceback"] if meta else None

    @property
    def children(self) -> list[AsyncResult]:
        """The tasks that it has sent."""
        from dream.compat.result import result_from_tuple

        meta = self._look()
        return [
            result_from_tuple(child, getattr(self, "app", None)) for child in (meta["children"] if meta else None) or ()
        ]

    @property
    def date_done(self) -> datetime | None:
        """When it ended."""
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
        """The whole stored result, with `result` as the property has it; libraries call it by this name."""
        meta = self._look()
        return {**meta, "result": self.result} if meta else {"status": PENDING, "result": None}

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None) -> Any:
        """What the task returned, now; its error is raised, unless `propagate` is False."""
        meta = self._look()
        result = result_of(meta)
        if propagate and meta and meta["status"] in PROPAGATE_STATES:
            raise result if result is not None else exceptions.TaskError("it has ended so, and no error is kept of it")
        if callback is not None:
            callback(self.id, result)
        return result

    maybe_reraise = maybe_throw

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """As it is written into messages and results, with that of the task that sent it, where it is known."""
        parent = getattr(self, "parent", None)
        return (self.id, parent.as_tuple() if parent is not None else None), None

    def as_list(self) -> list[str]:
        """Its id, then those of the tasks that sent it, where they are known."""
        parent = getattr(self, "parent", None)
        return [self.id, *(parent.as_list() if parent is not None else ())]

    def __getattr__(self, name: str) -> Any:
        # Of Celery's `result_extended`, where a worker has written it.
        if name not in {"name", "args", "kwargs", "worker", "retries", "queue", "parent_id", "group_id"}:
            return refuse_attribute(type(self).__name__, RESULT, name, self)
        meta: Any = self._look()
        return meta.get(name) if meta else None

    def __str__(self) -> str:
        return str(self.id)  # an `EagerResult` of a library's may have none

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

"""Celery's `celery.contrib.abortable`: a task that asks whether it has been aborted.

caller: result.abort() ─► ABORTED is stored ─► the run: self.is_aborted()
"""

from __future__ import annotations

from typing import Any

from dream.compat.app.task import Task
from dream.compat.result import AsyncResult

__all__ = ["ABORTED", "AbortableAsyncResult", "AbortableTask"]

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult):
    """The result of an `AbortableTask`."""

    def is_aborted(self) -> bool:
        return self.state == ABORTED

    def abort(self) -> None:
        """Abort it. The task decides whether it asks."""
        from dream.work.results import meta_of

        if not self.ready():
            self._results().put(meta_of(self.id, ABORTED))


class AbortableTask(Task):
    """A base class for tasks that can be aborted: `@app.task(bind=True, base=AbortableTask)`."""

    abstract = True

    def AsyncResult(self, task_id: str, **_: Any) -> AbortableAsyncResult:  # noqa: N802 (Celery's name)
        """The result of a run."""
        return AbortableAsyncResult(task_id, app=self.app)

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send it, as `Task.apply_async` does; the result can be aborted."""
        sent = super().apply_async(*args, **options)
        return self.AsyncResult(sent.id) if isinstance(sent, AsyncResult) else sent

    def is_aborted(self, **how: Any) -> bool:
        """Whether the run of this thread, or the task of `task_id=`, has been aborted."""
        task_id: str | None = how.get("task_id") or self.request.id
        return task_id is not None and self.AsyncResult(task_id).is_aborted()

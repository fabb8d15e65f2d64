"""Dream's own tasks as Celery sees them, and the app that has them.

    task(…)        accepted, not sent, run here  ─► its result
    task.delay(…)  accepted, sent                ─► AsyncResult

Either way a task goes through the producer: inline bytes are checked and staged, rows come before messages.
"""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any
from uuid import uuid4

from dream.celery.own_task import OwnTask
from dream.compat.app.base import Celery
from dream.compat.schedules import crontab
from dream.messages.registry import CLEANUP_TOKENS, DELETE_IMAGES, PROCESS_IMAGES, REGISTRY, TaskKind
from dream.producer import NOT_SENT, default
from dream.producer.orders import order_of

__all__ = ["app", "cleanup_expired_tokens", "delete_dream_images", "own_task", "process_and_upload_images", "timetable"]

app = Celery("dream", set_as_current=False)
app.sends_unknown = False


@cache
def timetable() -> dict[str, dict[str, Any]]:
    """The timetable of dream's own tasks in Celery's form; a caller may add entries."""
    return {
        kind.entry: {"task": kind.name, "schedule": crontab(minute=kind.at.minute, hour=kind.at.hour)}
        for kind in REGISTRY
        if kind.entry and kind.at
    }


app.conf.compute("beat_schedule", timetable)


def _task(kind: TaskKind) -> OwnTask:
    """Register one of dream's own tasks under its name and its older names."""

    def run_here(*args: Any, **kwargs: Any) -> Any:
        from dream.actors.inline import run_recorded
        from dream.settings import load

        settings, task_id = load(), str(uuid4())
        default().accept(order_of(kind, default(), task_id, NOT_SENT, *kind.bind(*args, **kwargs)))
        return run_recorded(settings, default(), task_id)

    run_here.__module__, _, run_here.__name__ = kind.name.rpartition(".")
    run_here.__qualname__, run_here.__doc__ = run_here.__name__, inspect.cleandoc(kind.doc)
    run_here.__signature__ = kind.signature  # type: ignore[attr-defined]
    task = OwnTask(app, kind.name, run_here, partial(order_of, kind))
    app.register_task(task)
    app.tasks.update(dict.fromkeys(kind.older_names, task))
    return task


for _kind in REGISTRY:
    _task(_kind)


def own_task(name: str) -> OwnTask:
    """One of dream's own tasks, by one of its names."""
    task = app.tasks[name]
    assert isinstance(task, OwnTask)  # noqa: S101 (all of that app are)
    return task


process_and_upload_images = own_task(PROCESS_IMAGES)
delete_dream_images = own_task(DELETE_IMAGES)
cleanup_expired_tokens = own_task(CLEANUP_TOKENS)

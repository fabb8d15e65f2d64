"""Which tasks' ends have been told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Row, Table, bindparam, func, select, text, update
from sqlalchemy.orm import Session

from dream.db.batches import at_most
from dream.db.clock import as_of, now
from dream.db.models import UNANNOUNCED, DreamTask

__all__ = ["mark_announced", "unannounced"]

_tasks = cast("Table", DreamTask.__table__)
# Built once, for each run needs it: to build a statement costs more than to run it.
_MARK = (
    update(_tasks)
    .where(_tasks.c.id == bindparam("task"))
    .values(announced_at=func.coalesce(_tasks.c.announced_at, now()))
)


def unannounced(session: Session, after_s: float, limit: int) -> Sequence[Row[str]]:
    """The `id` of finished tasks whose last event is not known to be in the stream, the longest finished first."""
    return session.execute(
        select(DreamTask.id)
        .where(text(UNANNOUNCED), DreamTask.finished_at <= as_of(-after_s))
        .order_by(DreamTask.finished_at)
        .limit(at_most(limit))
    ).all()


def mark_announced(session: Session, task_id: str) -> None:
    """The end has been told; the first time stays."""
    session.execute(_MARK, {"task": task_id})

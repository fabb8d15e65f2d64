"""Dead letters: tasks that failed for good. Their rows keep the reason, and their staged bytes stay for a replay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from uuid import uuid4

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from dream.db import images
from dream.db.batches import at_most, before
from dream.db.clock import as_of, now
from dream.db.models import FAILED, DreamImage, DreamTask
from dream.db.session import rows_hit
from dream.messages.states import ImageState, TaskState

__all__ = ["find", "forget", "ids_of_dead", "list_dead", "revive"]


def list_dead(
    session: Session, *, older_than_s: float = 0, limit: int | None = None, after: tuple[datetime, str] | None = None
) -> Sequence[DreamTask]:
    """Failed tasks, the newest first.

    Parameters:
      after: the end and the id of the task before the first one.
    """
    query = select(DreamTask).where(text(FAILED), DreamTask.finished_at <= as_of(-older_than_s))
    if after is not None:
        query = query.where(before((DreamTask.finished_at, after[0]), (DreamTask.id, after[1])))
    query = query.order_by(DreamTask.finished_at.desc(), DreamTask.id.desc())
    return session.scalars(query if limit is None else query.limit(at_most(limit))).all()


def ids_of_dead(session: Session, *, older_than_s: float = 0) -> Sequence[str]:
    """The ids of failed tasks, the newest first."""
    query = select(DreamTask.id).where(text(FAILED), DreamTask.finished_at <= as_of(-older_than_s))
    return session.scalars(query.order_by(DreamTask.finished_at.desc(), DreamTask.id.desc())).all()


def find(session: Session, task_id: str) -> DreamTask | None:
    """The failed task of that id."""
    return session.scalar(select(DreamTask).where(DreamTask.id == task_id, DreamTask.state == TaskState.FAILED))


def revive(
    session: Session, task_id: str, new_key: Callable[[], str], states: Collection[TaskState] = (TaskState.FAILED,)
) -> DreamTask | None:
    """Make a failed task new again: no attempts, no deaths, due now, its failed pictures pending.

    Parameters:
      new_key: makes a storage key. A picture gets a new one if the nightly sweep has deleted the old or deletes it now.
      states: the states of a task that runs again. An upload that has succeeded may have failed pictures.

    Returns:
      The task; None if it is in another state (now).
    """
    task = session.scalar(
        update(DreamTask)
        .where(DreamTask.id == task_id, DreamTask.state.in_(states))
        .values(
            state=TaskState.QUEUED,
            attempts=0,
            deaths=0,
            due_at=now(),
            expires_at=None,
            resends=0,
            resent_at=None,
            error=None,
            error_class=None,
            error_code=None,
            announced_at=None,
            finished_at=None,
        )
        .returning(DreamTask)
    )
    if task is not None:
        images.move_task(session, task_id, ImageState.FAILED, ImageState.PENDING)
        for image in images.of_task(session, task_id):
            if image.swept and image.state is ImageState.PENDING:
                image.storage_key, image.swept, image.wanted_variants = new_key(), False, None
                image.original_bucket = image.original_key = None
    return task


def forget(session: Session, task_id: str) -> Sequence[DreamImage] | None:
    """Remove a failed task, and make tombstones of its pictures: the nightly sweep deletes bytes that stay.

    The tombstones belong to no task, because a caller may use the id again.

    Returns:
      The pictures, so that the caller can delete their bytes; None if the task is not failed (any more).
    """
    # Locks the row: a replay at the same moment either comes first or finds nothing.
    failed = update(DreamTask).where(DreamTask.id == task_id, DreamTask.state == TaskState.FAILED)
    if not rows_hit(session, failed.values(resends=0)):
        return None
    pictures = images.of_task(session, task_id)
    ids = [picture.id for picture in pictures]
    images.mark_deleting(session, ids)
    images.mark_deleted(session, ids)
    session.execute(update(DreamImage).where(DreamImage.id.in_(ids)).values(task_id=f"purged-{uuid4()}"))
    session.execute(delete(DreamTask).where(DreamTask.id == task_id))
    return pictures

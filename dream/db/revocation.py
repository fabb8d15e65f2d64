"""Revoking tasks of ours: they are not wanted any more, and whoever claims one next ends it as revoked."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import update
from sqlalchemy.orm import Session

from dream.db.clock import now
from dream.db.models import DreamTask
from dream.db.session import rows_hit
from dream.messages import TaskState

__all__ = ["revoke"]


def revoke(session: Session, task_ids: Collection[str]) -> int:
    """Let the tasks that have not ended expire now; returns how many. A run that has begun goes on."""
    unfinished = (TaskState.QUEUED, TaskState.RUNNING)
    unended = update(DreamTask).where(DreamTask.id.in_(task_ids), DreamTask.state.in_(unfinished))
    return rows_hit(session, unended.values(expires_at=now()))

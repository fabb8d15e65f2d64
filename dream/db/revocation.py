"""Revoking tasks of ours: one that waits is not wanted any more, and whoever claims it ends it as revoked."""

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
    """Let the tasks that wait expire now; returns how many. What runs goes on."""
    waiting = update(DreamTask).where(DreamTask.id.in_(task_ids), DreamTask.state == TaskState.QUEUED)
    return rows_hit(session, waiting.values(expires_at=now()))

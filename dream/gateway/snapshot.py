"""The snapshot of a dream: its pictures from the database, as one update for a socket that missed events or asks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from dream.db import images, tasks
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import image_error, image_ref, image_step
from dream.messages.states import ImageState

if TYPE_CHECKING:
    from dream.db import Database

__all__ = ["snapshot_text"]

_UNFINISHED = (ImageState.PENDING, ImageState.PROCESSING)


def snapshot_text(database: Database, dream_id: int, max_retries: int) -> str:
    """The snapshot as JSON, encoded in the thread that reads it: a thousand pictures take milliseconds."""
    update = _snapshot(database, dream_id, max_retries)
    return json.dumps(update.as_message(), separators=(",", ":"), ensure_ascii=False)


def _snapshot(database: Database, dream_id: int, max_retries: int) -> ImageUpdate:
    """`processing` while a picture is unfinished, `failed` if all have failed.

    It has the steps of pictures that are not stored, and the next retry of all their uploads.
    """
    with database.read() as session:
        rows = images.page(session, dream_id)
        retries = tasks.retries_of(session, {row.task_id for row in rows if row.state == ImageState.PENDING})
    done = [row for row in rows if row.state == ImageState.COMPLETED and row.url]
    failed = [row for row in rows if row.state == ImageState.FAILED]
    attempts, due_at = min(retries.values(), key=lambda each: each[1], default=(None, None))
    return ImageUpdate(
        dream_id=dream_id,
        status=_status(rows, has_done=bool(done), has_failed=bool(failed)),
        images=tuple(image_ref(row) for row in done),
        errors=tuple(map(image_error, failed)),
        steps=tuple(step for row in rows if row.state != ImageState.COMPLETED and (step := image_step(row))),
        attempt=attempts,
        max_retries=max_retries if retries else None,
        retry_at=due_at.timestamp() if due_at else None,
    )


def _status(rows: Sequence[Row[Any]], *, has_done: bool, has_failed: bool) -> UpdateStatus:
    if any(row.state in _UNFINISHED for row in rows):
        return UpdateStatus.PROCESSING
    return UpdateStatus.FAILED if has_failed and not has_done else UpdateStatus.COMPLETED

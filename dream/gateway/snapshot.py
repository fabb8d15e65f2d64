"""What is there now, read from the database: the answer to `request_status` and to a gap in the events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from dream.db import images
from dream.messages import ImageState, ImageUpdate, UpdateStatus
from dream.outcomes import image_ref

if TYPE_CHECKING:
    from dream.db import Database

__all__ = ["snapshot", "snapshot_text"]


def snapshot_text(database: Database, dream_id: int) -> str:
    """The snapshot as JSON. It is encoded in the thread that reads it: a thousand pictures take milliseconds."""
    return json.dumps(snapshot(database, dream_id).as_message(), separators=(",", ":"), ensure_ascii=False)


def snapshot(database: Database, dream_id: int) -> ImageUpdate:
    """The dream's images as one update: `processing` while any is in work, `failed` where there are only failures."""
    with database.read() as session:
        rows = images.page(session, dream_id)
    done = [row for row in rows if row.state == ImageState.COMPLETED and row.url]
    failed = [row for row in rows if row.state == ImageState.FAILED]
    return ImageUpdate(
        dream_id=dream_id,
        status=_status(rows, has_done=bool(done), has_failed=bool(failed)),
        images=tuple(image_ref(row) for row in done),
        errors=tuple(
            {"name": row.filename, "position": row.position, "error": row.error or "the picture failed"}
            for row in failed
        ),
    )


def _status(rows: Sequence[Row[Any]], *, has_done: bool, has_failed: bool) -> UpdateStatus:
    if any(row.state in (ImageState.PENDING, ImageState.PROCESSING) for row in rows):
        return UpdateStatus.PROCESSING
    return UpdateStatus.FAILED if has_failed and not has_done else UpdateStatus.COMPLETED

"""Rows of open direct uploads: written before a URL exists, deleted by the completion or by the sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from sqlalchemy import Table, delete, func, select
from sqlalchemy.orm import Session

from dream.db.batches import delete_first
from dream.db.clock import as_of
from dream.db.models import DreamUpload
from dream.db.session import rows_hit
from dream.messages.direct import AwaitedFile

__all__ = ["close", "count_awaited", "find", "open_among", "take_expired", "total_bytes"]

_uploads = cast("Table", DreamUpload.__table__)


def find(session: Session, dream_id: int, upload_id: str) -> DreamUpload | None:
    """The open upload of that id in that dream."""
    return session.scalar(select(DreamUpload).where(DreamUpload.id == upload_id, DreamUpload.dream_id == dream_id))


def close(session: Session, upload_id: str) -> bool:
    """Delete the row of an upload that this transaction completes; False if it is completed or expired already."""
    return rows_hit(session, delete(_uploads).where(_uploads.c.id == upload_id)) > 0


def take_expired(session: Session, count: int) -> Sequence[list[AwaitedFile]]:
    """Delete the rows of at most so many uploads whose time is over; returns the files of each."""
    over = _uploads.c.expires_at <= as_of()
    chosen = delete_first(session, _uploads, over, key=_uploads.c.expires_at, count=count)
    return session.scalars(chosen.returning(_uploads.c.files)).all()


def open_among(session: Session, upload_ids: Iterable[str]) -> set[str]:
    """The ids among these whose uploads are open."""
    return set(session.scalars(select(_uploads.c.id).where(_uploads.c.id.in_(list(upload_ids)))))


# Few uploads are open at a time, so the sums need no index of their own.


def count_awaited(session: Session, *, dream_id: int | None = None, user_id: int | None = None) -> int:
    """The number of files of open uploads: of all, of one dream, or of one user."""
    query = select(func.sum(_uploads.c.file_count)).where(_uploads.c.expires_at > as_of())
    if dream_id is not None:
        query = query.where(_uploads.c.dream_id == dream_id)
    if user_id is not None:
        query = query.where(_uploads.c.user_id == user_id)
    return int(session.scalar(query) or 0)


def total_bytes(session: Session, user_id: int) -> int:
    """The announced bytes of a user's open uploads."""
    query = select(func.sum(_uploads.c.size_bytes)).where(_uploads.c.expires_at > as_of())
    return int(session.scalar(query.where(_uploads.c.user_id == user_id)) or 0)

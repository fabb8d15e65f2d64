"""Limits of an upload: refuse it, before it stores anything, if too many pictures wait or the user's space is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.errors import QuotaExceeded, TooManyPending
from dream.work.text import size_text

if TYPE_CHECKING:
    from dream.db import Database
    from dream.settings import Settings

__all__ = ["check_backlog", "check_quota"]


def check_backlog(settings: Settings, database: Database, more: int, dream_id: int, user_id: int | None = None) -> None:
    """Refuse `more` pictures if they would exceed a limit. Simultaneous callers may exceed it together.

    The files of open direct uploads wait, too.

    Raises:
      TooManyPending: the message names the limit.
      DatabaseUnavailable
    """
    limits = [
        (settings.max_pending, {}, "in all", "DREAM_MAX_PENDING"),
        (settings.max_pending_per_dream, {"dream_id": dream_id}, "of this dream", "DREAM_MAX_PENDING_PER_DREAM"),
    ]
    if user_id is not None:
        per_user = settings.max_pending_per_user
        limits.append((per_user, {"user_id": user_id}, "of this user", "DREAM_MAX_PENDING_PER_USER"))
    if not any(limit for limit, *_ in limits):
        return
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db import images, uploads
    from dream.db.faults import explain

    try:
        with database.read() as session:
            for limit, which, whose, name in limits:
                if not limit:
                    continue
                waiting = images.count_pending(session, limit, **which)
                waiting = min(limit, waiting + uploads.count_awaited(session, **which))
                if waiting + more > limit:
                    raise TooManyPending(
                        f"{limit} pictures {whose} may wait for processing, and {waiting}"
                        f"{' or more' if waiting == limit else ''} do ({name}): try again later"
                    )
    except SQLAlchemyError as error:
        raise explain(error, "nothing was accepted") from error


def check_quota(settings: Settings, database: Database, more_bytes: int, user_id: int | None) -> None:
    """Refuse an upload of `more_bytes` if its user's pictures would exceed `DREAM_MAX_STORED_BYTES_PER_USER`.

    Waiting uploads count with the bytes of their files. Simultaneous callers may exceed the limit together.

    Raises:
      QuotaExceeded: the message names the limit.
      DatabaseUnavailable
    """
    most = settings.max_stored_bytes_per_user
    if not most or user_id is None:
        return
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db import images, uploads
    from dream.db.faults import explain

    try:
        with database.read() as session:
            stored = images.stored_by(session, user_id) + uploads.total_bytes(session, user_id)
    except SQLAlchemyError as error:
        raise explain(error, "nothing was accepted") from error
    if stored + more_bytes > most:
        raise QuotaExceeded(
            f"the pictures of this user take {size_text(stored)} of {size_text(most)}, and {size_text(more_bytes)} "
            "more do not fit (DREAM_MAX_STORED_BYTES_PER_USER): delete some first"
        )

"""Back-pressure: an upload is refused before anything is stored where too many pictures wait already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.errors import TooManyPending

if TYPE_CHECKING:
    from dream.db import Database
    from dream.settings import Settings

__all__ = ["check_backlog"]


def check_backlog(settings: Settings, database: Database, more: int, dream_id: int, user_id: int | None = None) -> None:
    """Refuse `more` pictures where they would be too many. Callers at the same moment may pass together.

    Raises:
      TooManyPending: which limit is reached.
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

    from dream.db import images
    from dream.db.faults import explain

    try:
        with database.read() as session:
            for limit, which, whose, name in limits:
                if limit and (waiting := images.count_pending(session, **which)) + more > limit:
                    raise TooManyPending(
                        f"{waiting} pictures {whose} wait for processing and {limit} may ({name}): try again later"
                    )
    except SQLAlchemyError as error:
        raise explain(error, "nothing was accepted") from error

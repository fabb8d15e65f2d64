"""Who owns a dream."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dream.db.models import Dream

__all__ = ["Owner", "give_to", "owner_of"]


@dataclass(frozen=True)
class Owner:
    """The user to whom a dream belongs."""

    user_id: int
    username: str


def owner_of(session: Session, dream_id: int, owners_sql: str | None = None) -> Owner | None:
    """The dream's owner, or None where no such dream is visible.

    Parameters:
      owners_sql: `DREAM_OWNERS_SQL`: `:dream_id` in; `user_id`, `username` out.
    """
    if owners_sql:
        row = session.execute(text(owners_sql), {"dream_id": dream_id}).first()
    else:
        row = session.execute(select(Dream.user_id, Dream.username).where(Dream.id == dream_id)).first()
    return Owner(int(row[0]), str(row[1])) if row else None


def give_to(session: Session, dream_id: int, user_id: int, username: str) -> None:
    """Make the dream that user's, creating it where it is not there (development only)."""
    dream = session.get(Dream, dream_id)
    if dream is None:
        session.add(Dream(id=dream_id, user_id=user_id, username=username, title=f"Dream {dream_id}"))
    else:
        dream.user_id, dream.username = user_id, username

"""Revoked tokens: remembered until they would have expired anyway."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dream.db.clock import now
from dream.db.models import RevokedToken
from dream.db.session import rows_hit

__all__ = ["delete_expired", "is_revoked", "revoke"]


def is_revoked(session: Session, jti: str) -> bool:
    """Whether the token of that id was revoked; after it has expired nobody may know any more."""
    return session.scalar(select(RevokedToken.jti).where(RevokedToken.jti == jti)) is not None


def revoke(session: Session, jti: str, expires_at: datetime, user_id: int | None) -> None:
    """Revoke the token; a second time changes nothing."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(RevokedToken).values(jti=jti, expires_at=expires_at, user_id=user_id)
    session.execute(row.on_conflict_do_nothing())


def delete_expired(session: Session) -> int:
    """Delete what has expired by the database's clock; returns how many rows."""
    return rows_hit(session, delete(RevokedToken).where(RevokedToken.expires_at < now()))

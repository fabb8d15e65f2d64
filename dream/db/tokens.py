"""Revoked tokens, stored until they expire."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import cast

from sqlalchemy import Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dream.db.batches import delete_first
from dream.db.clock import as_of
from dream.db.models import RevokedToken
from dream.db.session import rows_hit

__all__ = ["Expired", "expired", "is_revoked", "revoke", "revoked_among"]


def is_revoked(session: Session, jti: str) -> bool:
    """Whether the token of that id was revoked. After its expiry the row may be gone."""
    return session.scalar(select(RevokedToken.jti).where(RevokedToken.jti == jti)) is not None


def revoked_among(session: Session, jtis: Collection[str]) -> set[str]:
    """Those of the ids whose tokens were revoked."""
    return set(session.scalars(select(RevokedToken.jti).where(RevokedToken.jti.in_(jtis))))


def revoke(session: Session, jti: str, expires_at: datetime, user_id: int | None) -> None:
    """Revoke the token; a second time changes nothing."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(RevokedToken).values(jti=jti, expires_at=expires_at, user_id=user_id)
    session.execute(row.on_conflict_do_nothing())


def expired() -> Expired:
    return Expired()


class Expired:
    """Revocations of tokens that have expired by the database's clock, deleted from the oldest on, batch by batch."""

    def __init__(self) -> None:
        self._from: datetime | None = None

    def delete(self, session: Session, count: int) -> int | None:
        """Delete at most `count`; returns how many, None if none is left that no other transaction deletes."""
        table = cast("Table", RevokedToken.__table__)
        expires_at = table.c.expires_at
        conditions = [expires_at < as_of()]
        if self._from is not None:
            conditions.append(expires_at >= self._from)
        statement = delete_first(session, table, *conditions, key=expires_at, count=count)
        if session.get_bind().dialect.name != "postgresql":
            return rows_hit(session, statement) or None
        # PostgreSQL's index keeps deleted rows until it is vacuumed: the next batch begins behind them.
        deleted = statement.returning(expires_at).cte("deleted")
        hit, until = session.execute(select(func.count(), func.max(deleted.c.expires_at)).select_from(deleted)).one()
        self._from = until or self._from
        return int(hit) or None

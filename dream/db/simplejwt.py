"""Django simplejwt's tables of outstanding and blacklisted tokens, which the site's own migrations make.

They are in dream's database, as the tables of `DREAM_OWNERS_SQL` are. A blacklisted token is an outstanding one with a
row in the second table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    any_,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dream.db.batches import at_most
from dream.db.clock import UTCDateTime, as_of, now
from dream.db.faults import lacks_tables
from dream.db.session import in_roles_schema, rows_hit
from dream.errors import BlacklistMissing

__all__ = ["Expired", "check", "expired", "is_revoked", "revoke", "revoked_among"]

_tables = MetaData()
_BigId = BigInteger().with_variant(Integer(), "sqlite")
_outstanding = Table(
    "token_blacklist_outstandingtoken",
    _tables,
    Column("id", _BigId, primary_key=True),
    Column("jti", String(255)),
    Column("token", Text),
    Column("created_at", UTCDateTime),
    Column("expires_at", UTCDateTime),
)
_blacklisted = Table(
    "token_blacklist_blacklistedtoken",
    _tables,
    Column("id", _BigId, primary_key=True),
    Column("token_id", BigInteger),
    Column("blacklisted_at", UTCDateTime),
)


@contextmanager
def _on_site(session: Session) -> Iterator[None]:
    """Find the site's tables by the search path of the role.

    Raises:
      BlacklistMissing
    """
    try:
        with in_roles_schema(session):
            yield
    except SQLAlchemyError as error:
        if lacks_tables(error):
            raise BlacklistMissing from error
        raise


def check(session: Session) -> None:
    """Read from both tables.

    Raises:
      BlacklistMissing: one of them, or a column, is not there.
    """
    with _on_site(session):
        for table in (_outstanding, _blacklisted):
            session.execute(select(table).limit(at_most(1)))


def is_revoked(session: Session, jti: str) -> bool:
    """Whether the token of that id is blacklisted. After its expiry the rows may be gone.

    Raises:
      BlacklistMissing
    """
    found = select(_blacklisted.c.id).join(_outstanding, _outstanding.c.id == _blacklisted.c.token_id)
    with _on_site(session):
        return session.scalar(found.where(_outstanding.c.jti == jti)) is not None


def revoked_among(session: Session, jtis: Collection[str]) -> set[str]:
    """Those of the ids whose tokens are blacklisted.

    Raises:
      BlacklistMissing
    """
    found = select(_outstanding.c.jti).join(_blacklisted, _outstanding.c.id == _blacklisted.c.token_id)
    with _on_site(session):
        return set(session.scalars(found.where(_outstanding.c.jti.in_(jtis))))


def revoke(session: Session, jti: str, expires_at: datetime, user_id: int | None) -> None:  # noqa: ARG001
    """Blacklist the token, as simplejwt's `blacklist()` does; a second time changes nothing.

    The row of a token that simplejwt has not recorded names no user, because the claim need not be the user's key, and
    has no copy of the token.

    Raises:
      BlacklistMissing
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {"jti": jti, "token": "", "created_at": now(), "expires_at": expires_at}
    its = select(_outstanding.c.id, now()).where(_outstanding.c.jti == jti)
    with _on_site(session):
        session.execute(insert(_outstanding).values(row).on_conflict_do_nothing())
        blacklist = insert(_blacklisted).from_select(["token_id", "blacklisted_at"], its)
        session.execute(blacklist.on_conflict_do_nothing())


def expired() -> Expired:
    return Expired()


class Expired:
    """Outstanding tokens that have expired, deleted with their blacklisting, batch by batch.

    The tables have no index by expiry, so a walk looks at every row once, in the order of ids.
    """

    def __init__(self) -> None:
        self._behind = -1
        self._before: datetime | None = None

    def delete(self, session: Session, count: int) -> int | None:
        """Look at the next `count` tokens and delete those that have expired; returns how many, None at the end.

        Raises:
          BlacklistMissing
        """
        row_id = _outstanding.c.id
        with _on_site(session):
            if self._before is None:
                self._before = session.scalar(select(as_of()))
            page = select(row_id).where(row_id > self._behind).order_by(row_id).limit(at_most(count)).subquery()
            last = session.scalar(select(func.max(page.c.id)))
            if last is None:
                return None
            is_old = (row_id > self._behind, row_id <= last, _outstanding.c.expires_at <= self._before)
            old = select(row_id).where(*is_old)
            self._behind = last
            if session.get_bind().dialect.name == "sqlite":
                session.execute(delete(_blacklisted).where(_blacklisted.c.token_id.in_(old)))
                return rows_hit(session, delete(_outstanding).where(*is_old))
            # Locked first, without a wait: from here on no other transaction can blacklist these tokens.
            ids = session.scalars(old.with_for_update(skip_locked=True)).all()
            chosen = any_(literal(list(ids), ARRAY(BigInteger)))
            # Checked with each statement, so that the time of the check counts for the size of the batch.
            session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            session.execute(delete(_blacklisted).where(_blacklisted.c.token_id == chosen))
            return rows_hit(session, delete(_outstanding).where(row_id == chosen))

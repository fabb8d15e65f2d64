"""Owners of dreams: from dream's table `dreams`, or by the application's query (`DREAM_OWNERS_SQL`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import CursorResult, Row, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dream.db.faults import is_refused, words_of
from dream.db.models import Dream
from dream.db.session import in_roles_schema
from dream.errors import InvalidArguments, OwnersQueryFailed
from dream.messages.users import UserId, number_and_text, user_number

__all__ = ["Owner", "give_to", "owner_of"]


@dataclass(frozen=True)
class Owner:
    """The user to whom a dream belongs.

    Parameters:
      user_id: the number that counts for this user.
      username: the name, which may name a bucket.
    """

    user_id: int
    username: str
    #: The user's text, if it is no number.
    user_text: str | None = None

    @property
    def user(self) -> str:
        """The user as a text, by which owners are compared."""
        return str(self.user_id) if self.user_text is None else self.user_text


def owner_of(session: Session, dream_id: int, owners_sql: str | None = None) -> Owner | None:
    """The dream's owner, or None if no such dream is visible.

    Parameters:
      owners_sql: `DREAM_OWNERS_SQL`: `:dream_id` in; `user_id`, `username` out.

    Raises:
      OwnersQueryFailed: the query fails, or gives other columns or types.
    """
    if owners_sql:
        return _owner(_ask(session, owners_sql, dream_id))
    query = select(Dream.user_id, Dream.username, Dream.user_text).where(Dream.id == dream_id)
    row = session.execute(query).first()
    if row is None:
        return None
    # Code that knows `user_id` alone leaves the text of an earlier owner behind.
    is_his = row.user_text is not None and user_number(row.user_text) == row.user_id
    return Owner(row.user_id, row.username, row.user_text if is_his else None)


def _ask(session: Session, owners_sql: str, dream_id: int) -> Row[Any] | None:
    try:
        with in_roles_schema(session):
            result = cast("CursorResult[Any]", session.execute(text(owners_sql), {"dream_id": dream_id}))
            columns = len(result.keys()) if result.returns_rows else 0
            if columns < 2:
                raise OwnersQueryFailed(
                    f"the query in DREAM_OWNERS_SQL gives {columns} of the two columns user_id and username"
                )
            return result.first()
    except SQLAlchemyError as error:
        if not is_refused(error):
            raise
        raise OwnersQueryFailed(f"the query in DREAM_OWNERS_SQL failed: {words_of(error)}") from error


def _owner(row: Sequence[Any] | None) -> Owner | None:
    """The owner in a row; None without a row, or without a user in it."""
    if row is None:
        return None
    user_id, username, *_ = row
    if user_id is None:
        return None
    if isinstance(user_id, Decimal | float) and user_id == user_id // 1:
        user_id = int(user_id)
    try:
        number, user = number_and_text(user_id)
    except InvalidArguments:
        raise OwnersQueryFailed(
            f"the query in DREAM_OWNERS_SQL gave the user_id {user_id!r:.60}, which is no whole number and no text"
        ) from None
    return Owner(number, "" if username is None else str(username), user)


def give_to(session: Session, dream_id: int, user_id: UserId, username: str) -> None:
    """Make the user the owner of the dream, and create the row if it is missing."""
    insert = sqlite.insert if session.get_bind(Dream).dialect.name == "sqlite" else postgresql.insert
    number, user = number_and_text(user_id)
    owner = {"user_id": number, "username": username, "user_text": user}
    row = insert(Dream).values(id=dream_id, title=f"Dream {dream_id}", **owner)
    session.execute(row.on_conflict_do_update(index_elements=[Dream.id], set_=owner))

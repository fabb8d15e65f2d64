"""The storage that pictures take, for operators: in all, by user, and staged.

The sums walk the index of stored bytes in its order, some users at a time, so no statement takes long.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import Table, func, select, text

from dream.db.backlog import MOST_COUNTED
from dream.db.batches import at_most
from dream.db.models import PROCESSED, STAGED, DreamImage

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.db.session import Database

__all__ = ["Staged", "Usage", "UserUsage", "measure", "of_nobody", "of_users", "staged"]

#: Users of one statement.
_AT_ONCE = 1000
#: Users that are listed.
_LISTED = 10
_images = cast("Table", DreamImage.__table__)
_SUMS = func.count(_images.c.stored_bytes), func.coalesce(func.sum(_images.c.stored_bytes), 0)


class UserUsage(NamedTuple):
    """A user's stored pictures; `user_id` is None for pictures without a known user."""

    user_id: int | None
    pictures: int
    stored_bytes: int


class Staged(NamedTuple):
    """Uploaded files that wait, or that a failed task keeps for a replay.

    Parameters:
      files: at most `MOST_COUNTED`.
      staged_bytes: of the files with a known size.
      unmeasured: files without one: dream notes sizes only for users with a quota.
    """

    files: int
    staged_bytes: int
    unmeasured: int


class Usage(NamedTuple):
    """The storage of a site.

    Parameters:
      pictures: stored pictures, with their variants and originals.
      stored_bytes: their bytes.
      users: the users with the most bytes, the largest first.
    """

    pictures: int
    stored_bytes: int
    users: list[UserUsage]
    staged: Staged


def measure(database: Database) -> Usage:
    """Add up the rows, in many short statements.

    Raises:
      SQLAlchemyError: the database is away.
    """
    pictures = stored_bytes = 0
    largest: list[UserUsage] = []
    for batch in _batches(database):
        pictures += sum(each.pictures for each in batch)
        stored_bytes += sum(each.stored_bytes for each in batch)
        known = (each for each in batch if each.user_id is not None)
        largest = heapq.nlargest(_LISTED, (*largest, *known), key=lambda each: each.stored_bytes)
    with database.read() as session:
        return Usage(pictures, stored_bytes, largest, staged(session))


def _batches(database: Database) -> Iterator[list[UserUsage]]:
    with database.read() as session:
        yield [of_nobody(session)]
    after: int | None = None
    while True:
        with database.read() as session:
            batch = of_users(session, after, _AT_ONCE)
        if not batch:
            return
        yield batch
        after = batch[-1].user_id


def of_users(session: Session, after: int | None, limit: int) -> list[UserUsage]:
    """The next users, by their ids."""
    user_id = _images.c.user_id
    behind = user_id.is_not(None) if after is None else user_id > after
    query = select(user_id, *_SUMS).where(text(PROCESSED), behind).group_by(user_id).order_by(user_id)
    return [UserUsage(each[0], each[1], int(each[2])) for each in session.execute(query.limit(at_most(limit)))]


def of_nobody(session: Session) -> UserUsage:
    """The pictures without a known user."""
    row = session.execute(select(*_SUMS).where(text(PROCESSED), _images.c.user_id.is_(None))).one()
    return UserUsage(None, row[0], int(row[1]))


def staged(session: Session) -> Staged:
    """The files in the staging."""
    size: Any = func.coalesce(_images.c.stored_bytes, _images.c.original_bytes)
    few = select(size.label("size")).where(text(STAGED)).limit(at_most(MOST_COUNTED)).subquery()
    row = session.execute(select(func.count(), func.coalesce(func.sum(few.c.size), 0), func.count(few.c.size))).one()
    return Staged(row[0], int(row[1]), row[0] - row[2])

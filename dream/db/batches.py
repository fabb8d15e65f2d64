"""Work on many rows in batches of bounded time, so that nobody else waits long for a lock.

batch, commit ─► batch, commit ─► …   each as large as the time of the one before it allows
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Delete, any_, delete, func, literal, literal_column, select, tuple_

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.orm import Session

    from dream.db.session import Database

__all__ = ["Pace", "at_most", "behind", "delete_first", "in_batches"]


def at_most(count: int) -> ColumnElement[int]:
    """A limit as a part of the text: PostgreSQL plans a bound one as a tenth of the table."""
    return literal_column(str(int(count)))


def behind(*key: tuple[Any, Any]) -> ColumnElement[bool]:
    """Whether a row comes after that of these values in an index of these columns: of each the column and its value."""
    return tuple_(*(column for column, _ in key)) > tuple_(*(literal(value, column.type) for column, value in key))


def delete_first(session: Session, table: Table, *conditions: Any, key: ColumnElement[Any], count: int) -> Delete:
    """A statement that deletes so many rows that meet the conditions, the first by `key`, which has an index.

    Rows that another transaction works on are left to that.
    """
    is_postgres = session.get_bind().dialect.name == "postgresql"
    address: ColumnElement[Any] = literal_column("ctid" if is_postgres else "rowid")
    first = select(address).select_from(table).where(*conditions).order_by(key).limit(at_most(count))
    if is_postgres:
        # As an array: the planner would compare a subquery with all rows of the table.
        chosen = func.array(first.with_for_update(skip_locked=True).scalar_subquery())
        return delete(table).where(address == any_(chosen))
    return delete(table).where(address.in_(first))


class Pace:
    """How many rows a batch may have: twice as many after a quick one, half as many after a slow one.

    Parameters:
      target_s: how long a batch may take; others wait for it, and on SQLite every writer does.
      least, most: rows of a batch, however slow or quick. With fewer, most of the time would go into commits.
    """

    def __init__(self, target_s: float = 0.03, *, least: int = 200, most: int = 12_800) -> None:
        self._target_s = target_s
        self._least = least
        self._most = most
        self.rows = 2 * least

    def note(self, took_s: float) -> None:
        """A batch of `rows` took so long."""
        if took_s > self._target_s:
            self.rows = max(self._least, self.rows // 2)
        elif took_s < self._target_s / 3:
            self.rows = min(self._most, self.rows * 2)


def in_batches(database: Database, work: Callable[[Session, int], int | None]) -> Iterator[int]:
    """Call `work` in one transaction after another until it says None; yields what it says.

    Parameters:
      work: does its work on so many rows at most.
    """
    pace = Pace()
    is_shared = database.engine.dialect.name != "sqlite"
    while True:
        with database.begin() as session:
            session.connection()  # to wait for the lock of SQLite is no part of the work
            begun = time.monotonic()
            done = work(session, pace.rows)
        if done is None:
            return
        took_s = time.monotonic() - begun
        pace.note(took_s)
        yield done
        if not is_shared:
            # Whoever waits for SQLite's one write lock looks again after a while: let it find the lock free.
            time.sleep(min(took_s, 1.0))

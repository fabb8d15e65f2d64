"""Work on many rows in batches of bounded time, so that no other process waits long for a lock.

batch, commit ─► batch, commit ─► …   the time of each batch decides the size of the next
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

__all__ = ["Pace", "at_most", "before", "behind", "delete_first", "in_batches"]


def at_most(count: int) -> ColumnElement[int]:
    """A literal LIMIT: PostgreSQL plans a bound one as a tenth of the table."""
    return literal_column(str(int(count)))


def behind(*key: tuple[Any, Any]) -> ColumnElement[bool]:
    """Whether a row comes after these values in an index of these columns; `key` holds pairs (column, value)."""
    return tuple_(*(column for column, _ in key)) > tuple_(*(literal(value, column.type) for column, value in key))


def before(*key: tuple[Any, Any]) -> ColumnElement[bool]:
    """Whether a row comes before these values, as `behind` says the contrary."""
    return tuple_(*(column for column, _ in key)) < tuple_(*(literal(value, column.type) for column, value in key))


def delete_first(session: Session, table: Table, *conditions: Any, key: ColumnElement[Any], count: int) -> Delete:
    """A statement that deletes the first `count` rows, by the indexed `key`, that meet the conditions.

    On PostgreSQL it skips rows that another transaction has locked.
    """
    is_postgres = session.get_bind().dialect.name == "postgresql"
    address: ColumnElement[Any] = literal_column("ctid" if is_postgres else "rowid")
    first = select(address).select_from(table).where(*conditions).order_by(key).limit(at_most(count))
    if is_postgres:
        # An array, because the planner would compare a subquery with every row of the table.
        chosen = func.array(first.with_for_update(skip_locked=True).scalar_subquery())
        return delete(table).where(address == any_(chosen))
    return delete(table).where(address.in_(first))


class Pace:
    """The size of the next batch: doubled after a quick one, halved after a slow one.

    Parameters:
      target_s: seconds that a batch may take: other transactions wait for its locks, and on SQLite every writer waits.
      least, most: bounds of `rows`. With fewer rows, commits would take most of the time.
    """

    def __init__(self, target_s: float = 0.03, *, least: int = 200, most: int = 12_800) -> None:
        self._target_s = target_s
        self._least = least
        self._most = most
        self.rows = 2 * least

    def note(self, took_s: float) -> None:
        """Adapt to the time of a batch of `rows`."""
        if took_s > self._target_s:
            self.rows = max(self._least, self.rows // 2)
        elif took_s < self._target_s / 3:
            self.rows = min(self._most, self.rows * 2)


def in_batches(database: Database, work: Callable[[Session, int], int | None]) -> Iterator[int]:
    """Call `work` in one transaction after another until it returns None; yields its results.

    Parameters:
      work: takes the most rows that it may work on.
    """
    is_shared = database.engine.dialect.name != "sqlite"
    # On SQLite every other writer waits for the batch, and polls at longer and longer intervals.
    pace = Pace() if is_shared else Pace(0.01, least=50)
    while True:
        with database.begin() as session:
            session.connection()  # take SQLite's lock first, so that the wait for it is not measured
            begun = time.monotonic()
            done = work(session, pace.rows)
        if done is None:
            return
        took_s = time.monotonic() - begun
        pace.note(took_s)
        yield done
        if not is_shared:
            # Other writers poll for SQLite's one write lock: leave it free for as long as this batch had it.
            time.sleep(min(took_s, 1.0))

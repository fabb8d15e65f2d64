"""Changes to tables that are large and in use: no statement makes other processes wait for long."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import OperationalError

__all__ = ["create_partial_index", "drop_index", "in_a_short_lock"]

#: Others queue behind a statement that waits for a lock, and wait as long as it does. Shorter than PostgreSQL's
#: `deadlock_timeout` (1 s): a change locks two tables, and a worker may hold one of them and wait for the other.
_LOCK_TIMEOUT_S = 0.5
_PAUSE_S = 0.2
_TRIES = 180
#: `lock_not_available`, and `deadlock_detected` where the server's `deadlock_timeout` is shorter than ours.
_LOCKED = {"55P03", "40P01"}
_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name))")


def create_partial_index(name: str, table: str, columns: str, condition: str) -> None:
    """Create an index over the rows that meet the condition, unless it is there.

    PostgreSQL creates it without stopping writers, and therefore outside a transaction. An interrupted creation leaves
    an invalid index, which is dropped and created anew.
    """
    where = sa.text(condition)
    if op.get_bind().dialect.name != "postgresql":
        op.create_index(name, table, columns.split(), sqlite_where=where, if_not_exists=True)
        return
    with op.get_context().autocommit_block():
        if op.get_bind().scalar(_IS_VALID, {"name": name}) is False:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(
            name, table, columns.split(), postgresql_where=where, postgresql_concurrently=True, if_not_exists=True
        )


def drop_index(name: str, table: str) -> None:
    """Drop an index, if it is there. PostgreSQL drops it without stopping readers or writers."""
    if op.get_bind().dialect.name != "postgresql":
        op.drop_index(name, table, if_exists=True)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)


def in_a_short_lock(change: Callable[[], object]) -> None:
    """Make a change that locks the table for a moment (PostgreSQL), and try again if the lock is not free at once.

    Raises:
      OperationalError: another transaction held the table for two minutes.
    """
    bind = op.get_bind()
    for left in reversed(range(_TRIES)):
        try:
            with bind.begin_nested():
                bind.execute(sa.text(f"SET LOCAL lock_timeout = '{round(_LOCK_TIMEOUT_S * 1000)}ms'"))
                change()
                bind.execute(sa.text("SET LOCAL lock_timeout = 0"))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED or not left:
                raise
            time.sleep(_PAUSE_S)
        else:
            return

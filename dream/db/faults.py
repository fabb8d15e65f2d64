"""Turn errors of the database's driver into dream's: the server did not answer, or it refused a statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dream.errors import DatabaseRefused, DatabaseUnavailable, TablesMissing
from dream.log import redact

__all__ = ["explain", "explained", "is_refused", "lacks_tables", "words_of"]

#: PostgreSQL's names for a missing table, column and schema.
_SCHEMA_FAULTS = ("42P01", "42703", "3F000")
#: Classes of PostgreSQL's temporary errors: 08 connection, 40 rolled back by the server, 53 resources, 55 locks,
#: 57 shut down or out of time, 58 its system. Every other class means a refused statement.
_PASSING = ("08", "40", "53", "55", "57", "58")
#: Beginnings of the names of SQLite's temporary errors.
_SQLITE_PASSING = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_IOERR",
    "SQLITE_PROTOCOL",
    "SQLITE_INTERRUPT",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
)
#: PostgreSQL's words for a connection that it will never accept. Other refusals are temporary: it starts, or is full.
_NO_ENTRY = (
    *("password", "does not exist", "pg_hba.conf", "permission denied", "not permitted"),
    "unsupported startup parameter",
)
#: Words of PgBouncer's, and of a server behind it, if a client relies on its session: a startup option, or a prepared
#: statement of another transaction.
_POOLED = ("unsupported startup parameter", "prepared statement")


def lacks_tables(error: BaseException) -> bool:
    """Whether an error of SQLAlchemy's says that a table or a column is not there."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) in _SCHEMA_FAULTS or str(cause).startswith(
        ("no such table", "no such column")
    )


def is_refused(error: BaseException) -> bool:
    """Whether the database refused the request: asking again does not help."""
    if not isinstance(error, DBAPIError):  # SQLAlchemy's own: a missing parameter, for example
        return isinstance(error, SQLAlchemyError) and not isinstance(error, PoolTimeout)
    if error.connection_invalidated:
        return False
    if state := getattr(error.orig, "sqlstate", None):
        return not str(state).startswith(_PASSING)
    if name := getattr(error.orig, "sqlite_errorname", None):
        return not str(name).startswith(_SQLITE_PASSING)
    # Errors of libpq's connect have words and no code; the server's own words begin with their severity.
    words = str(error.orig)
    return ("FATAL:" in words and any(each in words for each in _NO_ENTRY)) or "no password supplied" in words


def words_of(error: BaseException) -> str:
    """The database's own words, in one line."""
    words = str(getattr(error, "orig", None) or error).strip()
    if "FATAL:" in words:
        words = words.rpartition("FATAL:")[2].strip()
    if any(each in words for each in _POOLED):
        words = f"{words.splitlines()[0]}: behind PgBouncer set DREAM_DATABASE_PGBOUNCER=true"
    return redact(words.splitlines()[0]) if words else type(error).__name__


def explain(error: SQLAlchemyError, what: str = "") -> DatabaseUnavailable:
    """The error for callers: one true sentence.

    Parameters:
      what: the clause before the reason, as in `nothing was accepted`.
    """
    found = _explained(error)
    return type(found)(f"{what}: {found}") if what else found


def _explained(error: SQLAlchemyError) -> DatabaseUnavailable:
    if lacks_tables(error):
        return TablesMissing()
    if is_refused(error):
        return DatabaseRefused(f"the database answered with an error: {words_of(error)}")
    if hasattr(getattr(error, "orig", None), "sqlite_errorname"):
        return DatabaseUnavailable(f"the database cannot be used now: {words_of(error)}")
    return DatabaseUnavailable(f"the database did not answer: {words_of(error)}")


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the database's library inside the block into dream's, with one sentence of advice.

    Raises:
      DatabaseUnavailable, DatabaseRefused
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise explain(error) from error

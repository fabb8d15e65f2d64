"""Connections and transactions: SQLite (a file of our own) and PostgreSQL behind one small class."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Engine, UpdateBase, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from dream.db.faults import is_refused
from dream.db.models import DreamTask
from dream.log import get_logger
from dream.patience import patiently

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Database", "in_our_schema", "in_roles_schema", "make_engine", "rows_hit"]

T = TypeVar("T")
log = get_logger(__name__)

#: A write that fails at once takes this long to be tried again.
_FIRST_PAUSE_S = 0.2
_SQLITE_BUSY_S = 10
#: The execution option of our engines that names their schema.
_SCHEMA = "dream_schema"
_POSTGRES_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_POSTGRES_LIMITS = {
    # No statement of ours takes long; one that does waits for a lock that nobody will release.
    "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000",
}


def make_engine(database_url: str, *, schema: str | None = None, takes_long: bool = False) -> Engine:
    """An engine with the settings that our promises need.

    Parameters:
      database_url: `sqlite:///file` or `postgresql://…`.
      schema: `DREAM_DATABASE_SCHEMA`: PostgreSQL's schema in which unqualified names are looked for, and no other.
      takes_long: PostgreSQL may take longer than half a minute for a statement.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _SQLITE_BUSY_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = _POSTGRES_CONNECTION if takes_long else _POSTGRES_CONNECTION | _POSTGRES_LIMITS
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=options,
        pool_pre_ping=True,
        execution_options={_SCHEMA: schema},
    )
    if schema is not None:
        # Inserted before SQLAlchemy's own listener, which asks for the default schema.
        event.listen(engine, "connect", partial(_enter_schema, schema), insert=True)
    if not takes_long:
        event.listen(engine, "do_connect", _connect_postgres)
    return engine


def _connect_postgres(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    from dream.db.patience import PatientConnection

    return PatientConnection.connect(*arguments, **options)


def _enter_schema(schema: str, connection: Any, _record: Any) -> None:
    # Not as an option of the connection, because `SET … TO DEFAULT` must lead back to the role's own path.
    connection.autocommit = True
    connection.execute(f'SET search_path TO "{schema}"')
    connection.autocommit = False


@contextmanager
def in_our_schema(session: Session, schema: str | None) -> Iterator[None]:
    """Inside, a caller's session finds our tables in our schema. The caller's pending changes are flushed before."""
    if schema is None:
        yield
        return
    session.flush()
    path = session.scalar(text("SELECT current_setting('search_path')"), bind_arguments={"mapper": DreamTask})
    _set_path(session, f'"{schema}"')
    yield
    # Not in a `finally`: after an error the rollback resets the path.
    _set_path(session, path)


@contextmanager
def in_roles_schema(session: Session) -> Iterator[None]:
    """Inside, a session of ours finds the tables of its role's own search path: the application's."""
    schema = session.get_bind().get_execution_options().get(_SCHEMA)
    if schema is None:
        yield
        return
    session.execute(text("SET LOCAL search_path TO DEFAULT"))
    yield
    _set_path(session, f'"{schema}"')


def _set_path(session: Session, path: str | None) -> None:
    session.execute(
        text("SELECT set_config('search_path', :path, true)"), {"path": path}, bind_arguments={"mapper": DreamTask}
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own BEGIN comes too late for us (before the first write); we send ours.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes must not find out at its end that it may not.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def rows_hit(session: Session, statement: UpdateBase) -> int:
    """Run an UPDATE or DELETE; returns how many rows it met."""
    result = session.execute(statement)
    return cast("CursorResult[Any]", result).rowcount


class Database:
    """The database of one process.

    Parameters:
      settings: where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine = make_engine(settings.database_url, schema=settings.database_schema)
        self._reading = self.engine.execution_options(read_only=True)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session in a transaction that commits at the end of the block, or rolls back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading: takes no write lock."""
        with Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    def persist(self, write: Callable[[Session], T], patience_s: float = 60.0) -> T:
        """Run a transaction again and again while the database is away.

        Parameters:
          write: the transaction; it must bear being run twice, for a commit may be done whose answer was lost.
          patience_s: how long to go on trying.

        Raises:
          OperationalError, InterfaceError: the database is away for longer, or refuses what is asked of it.
          Exception: whatever else `write` raises, at once.
        """

        def once() -> T:
            with self.begin() as session:
                return write(session)

        def tell(error: OperationalError | InterfaceError, again_in_s: float) -> None:
            log.warning("database_away", error=str(error.orig), again_in_s=again_in_s)

        away = (OperationalError, InterfaceError)
        return patiently(once, away, told=tell, unless=is_refused, patience_s=patience_s, first_pause_s=_FIRST_PAUSE_S)

    def is_bare(self) -> bool:
        """Whether it answers and never had our tables: who has callers' tasks alone needs none."""
        try:
            return not inspect(self._reading).has_table(DreamTask.__tablename__)
        except SQLAlchemyError:
            return False

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()

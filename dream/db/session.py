"""Connections and transactions: SQLite (a file of dream's own) and PostgreSQL behind one small class."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import URL, Connection, CursorResult, Engine, UpdateBase, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from dream.db.faults import is_refused
from dream.db.models import DreamTask
from dream.errors import SettingsError
from dream.log import get_logger, redact
from dream.observe import tracing
from dream.observe.watching import watch_statements
from dream.work.patience import patiently

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Database", "Limits", "in_our_schema", "in_roles_schema", "make_engine", "rows_hit"]

T = TypeVar("T")
log = get_logger(__name__)

#: Seconds before another try of a failed write.
_FIRST_PAUSE_S = 0.2
_SQLITE_BUSY_S = 10
_INSTALL = "pip install 'dream-pictures[postgres]'"
#: The execution option of dream's engines that names their schema.
_SCHEMA = "dream_schema"
#: Seconds beyond the server's limit of a statement, so that a server that works answers first.
_PATIENCE_S = 5.0
_IDLE_IN_TRANSACTION_MS = 60_000
_POSTGRES_CONNECTION = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@dataclass(frozen=True)
class Limits:
    """The limits of connections to PostgreSQL; see the settings `DREAM_DATABASE_…`.

    Parameters:
      statement_timeout_s: None for no limit. Dream's statements are short; a long one waits for a lock that no process
        will release.
    """

    pool_size: int = 5
    pool_overflow: int = 10
    pool_timeout_s: float = 30
    connect_timeout_s: int = 5
    statement_timeout_s: int | None = 30
    recycle_s: float = 3600

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            pool_size=settings.database_connections,
            pool_overflow=settings.database_pool_overflow,
            pool_timeout_s=settings.database_pool_timeout_s,
            connect_timeout_s=settings.database_connect_timeout_s,
            statement_timeout_s=settings.database_statement_timeout_s,
            recycle_s=settings.database_recycle_s,
        )

    @property
    def session_ms(self) -> dict[str, int]:
        """PostgreSQL's names of the limits of a session, in milliseconds."""
        if self.statement_timeout_s is None:
            return {}
        return {
            "statement_timeout": self.statement_timeout_s * 1000,
            "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_MS,
        }


def make_engine(
    database_url: str,
    *,
    schema: str | None = None,
    limits: Limits | None = None,
    takes_long: bool = False,
    behind_pgbouncer: bool = False,
) -> Engine:
    """An engine with the settings that dream's guarantees need.

    Parameters:
      database_url: `sqlite:///file` or `postgresql://…`.
      schema: `DREAM_DATABASE_SCHEMA`: the only schema of PostgreSQL in which unqualified names are looked up.
      limits: of PostgreSQL's connections.
      takes_long: PostgreSQL may take any time for a statement.
      behind_pgbouncer: `DREAM_DATABASE_PGBOUNCER`: each transaction may meet another connection of the server.

    Raises:
      SettingsError: the package psycopg cannot be imported, or the URL cannot be read.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError) as error:  # the second for a port that is no number
        raise SettingsError(f"DREAM_DATABASE_URL={redact(database_url)} is wrong: {error}") from None
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _SQLITE_BUSY_S}, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    limits = limits or Limits()
    if takes_long:
        limits = replace(limits, statement_timeout_s=None)
    engine = _postgres_engine(url, schema, limits, behind_pgbouncer=behind_pgbouncer)
    if limits.statement_timeout_s is not None:
        event.listen(engine, "do_connect", partial(_connect_patiently, limits.statement_timeout_s + _PATIENCE_S))
    return engine


def _postgres_engine(url: URL, schema: str | None, limits: Limits, *, behind_pgbouncer: bool) -> Engine:
    of_session: dict[str, int | str] = {**limits.session_ms}
    how: dict[str, Any] = _POSTGRES_CONNECTION | {"connect_timeout": limits.connect_timeout_s}
    if behind_pgbouncer:
        how["prepare_threshold"] = None  # the next transaction's connection would not know the statement
    elif of_session:
        how["options"] = " ".join(f"-c {name}={value}" for name, value in of_session.items())
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=how,
            pool_pre_ping=True,
            hide_parameters=True,  # the log and error reports show no names of files and users
            pool_size=limits.pool_size,
            max_overflow=limits.pool_overflow,
            pool_timeout=limits.pool_timeout_s,
            pool_recycle=limits.recycle_s,
            execution_options={_SCHEMA: schema},
        )
    except ImportError as error:
        raise SettingsError(f"postgresql:// needs the package psycopg with libpq ({error}): {_INSTALL}") from None
    if behind_pgbouncer:
        if schema is not None:
            of_session["search_path"] = f'"{schema}"'
        event.listen(engine, "begin", partial(_set_for_transaction, of_session))
    elif schema is not None:
        # Inserted before SQLAlchemy's own listener, which asks for the default schema.
        event.listen(engine, "connect", partial(_enter_schema, schema), insert=True)
    return engine


def _connect_patiently(no_answer_s: float, _dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    from dream.db.patience import PatientConnection

    connection = PatientConnection.connect(*arguments, **options)
    connection.no_answer_s = no_answer_s
    return connection


def _set_for_transaction(values: Mapping[str, int | str], connection: Connection) -> None:
    """Set a session's limits and path for one transaction: PgBouncer refuses options of the connection."""
    if values:
        calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())
        connection.exec_driver_sql(f"SELECT {calls}")


def _enter_schema(schema: str, connection: Any, _record: Any) -> None:
    # Not as an option of the connection, because `SET … TO DEFAULT` must lead back to the role's own path.
    connection.autocommit = True
    connection.execute(f'SET search_path TO "{schema}"')
    connection.autocommit = False


@contextmanager
def in_our_schema(session: Session, schema: str | None) -> Iterator[None]:
    """Let a caller's session find dream's tables in their schema. The session first flushes its pending changes."""
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
    """Let a session of dream's find the application's tables, by the search path of its role."""
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
    # The driver sends BEGIN only before the first write; this sends it earlier.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes must not find out at its end that it may not.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def rows_hit(session: Session, statement: UpdateBase) -> int:
    """Run an UPDATE or DELETE; returns the number of rows that it changed."""
    result = session.execute(statement)
    return cast("CursorResult[Any]", result).rowcount


class Database:
    """The database of one process.

    Parameters:
      settings: where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine = make_engine(
            settings.database_url,
            schema=settings.database_schema,
            limits=Limits.of(settings),
            behind_pgbouncer=settings.database_pgbouncer,
        )
        tracing.watch_engine(self.engine)
        if settings.metrics_port:
            watch_statements(self.engine)
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
          write: the transaction. It must be safe to run twice, because the answer to a commit may be lost.
          patience_s: seconds for which the transaction is tried again.

        Raises:
          OperationalError, InterfaceError: the database is away for longer, or refuses a statement.
          Exception: any other error of `write`, at once.
        """

        def once() -> T:
            with self.begin() as session:
                return write(session)

        def tell(error: OperationalError | InterfaceError, again_in_s: float) -> None:
            log.warning("database_away", error=str(error.orig), again_in_s=again_in_s)

        away = (OperationalError, InterfaceError)
        return patiently(once, away, told=tell, unless=is_refused, patience_s=patience_s, first_pause_s=_FIRST_PAUSE_S)

    def is_bare(self) -> bool:
        """Whether the database answers and never had dream's tables: an app with only its own tasks needs none."""
        try:
            return not inspect(self._reading).has_table(DreamTask.__tablename__)
        except SQLAlchemyError:
            return False

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()

"""Migrate a database with Alembic, and read its revision.

The database may be the application's, with tables and migrations of its own. Dream's revision is in a table of its own,
`dream_alembic_version`. Older releases kept it in `alembic_version`; the first migration of a newer one moves it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import cast

from alembic import command, op
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, Inspector, String, Table, inspect, text
from sqlalchemy.orm import Session

from dream.db.migrations.large_tables import in_a_short_lock
from dream.db.models import Base, Dream
from dream.db.session import make_engine
from dream.errors import DatabaseRefused, SettingsError, TablesMissing
from dream.log import get_logger

log = get_logger(__name__)

__all__ = ["VERSION_TABLE", "check", "current", "head", "upgrade"]

VERSION_TABLE = "dream_alembic_version"

#: Keeps two processes from migrating at once. Older releases have another number: they wait for it in a statement.
_ADVISORY_LOCK = 0x64726562
_ASK_EVERY_S = 0.2
_OLD_VERSION_TABLE = "alembic_version"
#: The revisions that older releases left, the newest first, each with a column that it brought.
_OLD_REVISIONS = (
    ("0004", "dream_tasks", "error_class"),
    ("0003", "dream_periodic", "ran_at"),
    ("0002", "dream_images", "wanted_variants"),
    ("0001", "dream_tasks", "lease_token"),
)
_OTHER_PLACE = "give dream a database of its own, or on PostgreSQL a schema of its own (DREAM_DATABASE_SCHEMA)"

_NOT_THROUGH_PGBOUNCER = (
    "DREAM_DATABASE_SCHEMA cannot be migrated through PgBouncer: run `dream migrate` without DREAM_DATABASE_PGBOUNCER, "
    "and with PostgreSQL's own address in DREAM_DATABASE_URL"
)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def upgrade(
    database_url: str,
    revision: str = "head",
    *,
    schema: str | None = None,
    with_dreams: bool = True,
    behind_pgbouncer: bool = False,
) -> str | None:
    """Bring the database to a revision. Several processes may call it at once, and again after an interruption.

    Parameters:
      schema: `DREAM_DATABASE_SCHEMA`; created if it is missing.
      with_dreams: whether to make dream's table `dreams`; False if `DREAM_OWNERS_SQL` is set.
      behind_pgbouncer: `DREAM_DATABASE_PGBOUNCER`.

    Returns:
      The revision before; None if there were no tables.

    Raises:
      DatabaseRefused: a table of the application has a name of dream's, or a newer release has migrated the database.
      SettingsError: there is a schema, and PgBouncer is between.
    """
    if behind_pgbouncer and schema is not None:
        # Some indexes are created outside a transaction, where PgBouncer lets nobody set the schema.
        raise SettingsError(_NOT_THROUGH_PGBOUNCER)
    # No limit: this migration, or another process's before it, may take long.
    engine = make_engine(database_url, schema=schema, takes_long=True, behind_pgbouncer=behind_pgbouncer)
    config = _config()
    try:
        with _opened(engine) as connection:
            with nullcontext() if connection.in_transaction() else connection.begin():
                _create_schema(connection, schema)
                found = _revision(connection) or _take_over(connection)
                _check(connection, found, with_dreams=with_dreams)
                if with_dreams:
                    cast("Table", Dream.__table__).create(connection, checkfirst=True)
                    _add_user_text(connection)
            config.attributes.update(connection=connection, found=found)
            command.upgrade(config, revision)
            return found
    finally:
        engine.dispose()


@contextmanager
def _opened(engine: Engine) -> Iterator[Connection]:
    """A connection to migrate on, while no other process does."""
    with ExitStack() as stack:
        if engine.dialect.name == "postgresql":
            stack.enter_context(_alone(engine))
            yield stack.enter_context(engine.connect())
        else:
            # All in one transaction: a process that is killed leaves the tables as they were.
            yield stack.enter_context(engine.begin())


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Admit one process at a time to the block, by a lock on a connection of its own.

    Others poll for the lock. A concurrent creation of an index waits for every running statement, so a statement that
    waited for this lock would be a deadlock.
    """
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        while not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK}):
            connection.rollback()
            time.sleep(_ASK_EVERY_S)
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield


@cache
def head() -> str:
    """The newest revision that this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    return revision or ""


@cache
def _revisions() -> frozenset[str]:
    return frozenset(each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions())


def check(session: Session) -> None:
    """Check by one query that the tables have the revision of this release, or of a newer one during its roll-out.

    Raises:
      TablesMissing: the tables are older or missing.
      SQLAlchemyError: the database does not answer, or has no tables at all.
    """
    found = session.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
    if found != head() and (found is None or found in _revisions()):
        raise TablesMissing


def current(database_url: str, *, schema: str | None = None, behind_pgbouncer: bool = False) -> str | None:
    """The revision of the database; None if it was never migrated."""
    engine = make_engine(database_url, schema=schema, behind_pgbouncer=behind_pgbouncer)
    try:
        with engine.connect().execution_options(read_only=True) as connection:
            return _revision(connection) or _old_revision(inspect(connection))
    finally:
        engine.dispose()


def _warn_of_others(connection: Connection) -> None:
    """Warn if another schema has dream's tables: the new ones are empty, and perhaps a setting is wrong."""
    if connection.dialect.name != "postgresql":
        return
    named = text("SELECT schemaname FROM pg_tables WHERE tablename = :table ORDER BY schemaname")
    others = list(connection.scalars(named, {"table": VERSION_TABLE}))
    if others:
        log.warning(
            "tables_in_another_schema",
            schemas=others,
            do="the tables that are created now are empty: if you want those there, set DREAM_DATABASE_SCHEMA to their "
            "schema, or unset it for the first one of the role's search_path",
        )


def _create_schema(connection: Connection, schema: str | None) -> None:
    if schema is None:
        return
    # Looked up first: IF NOT EXISTS needs the right to create a schema, even where it exists.
    is_there = text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
    if connection.scalar(is_there, {"schema": schema}) is None:
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})


def _revision(connection: Connection) -> str | None:
    return _context(connection).get_current_revision()


def _old_revision(inspector: Inspector) -> str | None:
    """The revision that an older release gave dream's tables; None without such tables.

    The columns decide: `alembic_version` may be the application's, with revisions of the same names.
    """
    columns = {table: _columns(inspector, table) for table in {table for _, table, _ in _OLD_REVISIONS}}
    if "lease_token" not in columns["dream_tasks"]:
        return None
    return next(revision for revision, table, column in _OLD_REVISIONS if column in columns[table])


def _take_over(connection: Connection) -> str | None:
    """Move the revision of an older release into dream's own table; returns it."""
    inspector = inspect(connection)
    revision = _old_revision(inspector)
    if revision is None:
        return None
    _context(connection).stamp(ScriptDirectory.from_config(_config()), revision)
    if inspector.has_table(_OLD_VERSION_TABLE):
        ours = text(f"DELETE FROM {_OLD_VERSION_TABLE} WHERE version_num = :revision")  # noqa: S608 (a constant)
        connection.execute(ours, {"revision": revision})
        # The application's Alembic creates the table again if it needs it.
        if connection.scalar(text(f"SELECT 1 FROM {_OLD_VERSION_TABLE}")) is None:  # noqa: S608
            connection.execute(text(f"DROP TABLE {_OLD_VERSION_TABLE}"))
    return revision


def _check(connection: Connection, found: str | None, *, with_dreams: bool) -> None:
    """Check that no table of the application has one of dream's names.

    Raises:
      DatabaseRefused: one has, or this release does not know the revision.
    """
    inspector = inspect(connection)
    if found is None:
        _warn_of_others(connection)
        for table in Base.metadata.sorted_tables:
            if table is not Dream.__table__ and inspector.has_table(table.name):
                raise DatabaseRefused(f"the database has a table {table.name} that is not dream's: {_OTHER_PLACE}")
    elif found not in _revisions():
        raise DatabaseRefused(
            f"the database is at revision {found}, which this release does not know: a newer release has migrated it"
        )
    if with_dreams and inspector.has_table("dreams"):
        missing = set(Dream.__table__.columns.keys()) - _columns(inspector, "dreams") - {"user_text"}
        if missing:
            raise DatabaseRefused(
                "the database has a table dreams that is not dream's: set DREAM_OWNERS_SQL to a query that finds a "
                f"dream's owner in it, or {_OTHER_PLACE}"
            )


def _add_user_text(connection: Connection) -> None:
    """Add the column to a table `dreams` of an older release, whose processes go on to write the others."""
    if "user_text" in _columns(inspect(connection), "dreams"):
        return
    with Operations.context(_context(connection)):
        column = partial(op.add_column, "dreams", Column("user_text", String(255), nullable=True))
        in_a_short_lock(column) if connection.dialect.name == "postgresql" else column()


def _columns(inspector: Inspector, table: str) -> set[str]:
    return {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()

"""Alembic, driven from code: to head, and where a database stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from dream.db.session import make_engine

__all__ = ["current", "head", "upgrade"]

#: Any number will do, as long as it is always the same: two processes must not migrate at once. (Releases that wait for
#: it within a statement have another.)
_ADVISORY_LOCK = 0x64726562
_ASK_EVERY_S = 0.2


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database to a revision. Several processes may call it at once, and again after an interruption."""
    # Another process's migration, which is waited for, and one's own take as long as they take.
    engine = make_engine(database_url, takes_long=True)
    config = _config()
    try:
        with ExitStack() as stack:
            if engine.dialect.name == "postgresql":
                stack.enter_context(_alone(engine))
                connection = stack.enter_context(engine.connect())
            else:
                # All in one transaction: who is killed leaves the tables as they were.
                connection = stack.enter_context(engine.begin())
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """One process at a time is in the block, by a lock on a connection of its own.

    Others ask again and again: an index that is created concurrently waits for every statement that runs, and would
    wait for one that waits for us.
    """
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        while not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK}):
            connection.rollback()
            time.sleep(_ASK_EVERY_S)
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield


def head() -> str:
    """The newest revision that this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    return revision or ""


def current(database_url: str) -> str | None:
    """The revision at which the database stands, or None where it was never migrated."""
    engine = make_engine(database_url)
    try:
        with engine.connect().execution_options(read_only=True) as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()

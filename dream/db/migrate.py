"""Alembic, driven from code: to head, and where a database stands."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from dream.db.session import make_engine

__all__ = ["current", "head", "upgrade"]

#: Any number will do, as long as it is always the same: two processes must not migrate at once.
_ADVISORY_LOCK = 0x64726561


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def upgrade(database_url: str) -> None:
    """Bring the database to head. Safe to call from several processes at once."""
    # Another process's migration, which is waited for, and one's own take as long as they take.
    engine = make_engine(database_url, takes_long=True)
    config = _config()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


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

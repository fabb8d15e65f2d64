"""An upgrade of tables that have rows: nothing is lost, whoever is killed, and others go on working meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.schema import Index

from dream.db import Base, migrate
from tests.conftest import created_database, wait_for

#: The revision before rows could be removed.
OLD = "0004"
#: Columns that are newer.
NEWER = {
    "error_code",
    *("remakes", "made_at", "focus", "found_focus", "original_key", "original_bytes"),
    *("first_remake", "last_remake", "original_bucket"),
    *("stored_bytes", "facts", "sha256", "perceptual_hash", "duplicate_of"),
}
TASK = (
    "INSERT INTO dream_tasks (id, name, args, state, due_at, created_at, lease_token) "
    "VALUES (:id, 'n', '[]', 'queued', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, :id)"
)
IMAGE = (
    'INSERT INTO dream_images (id, dream_id, task_id, "index", filename, state, storage_key, variants, error, '
    "created_at, updated_at) VALUES (:id, 7, :task, 0, 'a''b.jpg', 'completed', :key, '[{\"name\": \"t\"}]', NULL, "
    "'2026-01-02 03:04:05.678901', '2026-01-02 03:04:05.678901')"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the release before, with two pictures of a task."""
    if request.param == "sqlite":
        yield filled(f"sqlite:///{tmp_path}/old.db")
    else:
        yield request.getfixturevalue("old_postgres")


@pytest.fixture
def old_postgres(postgres_server_url: str) -> Iterator[str]:
    with created_database(postgres_server_url, f"dream_old_{uuid4().hex[:12]}") as url:
        yield filled(url)


def filled(url: str) -> str:
    migrate.upgrade(url, OLD)
    with engine_of(url).begin() as connection:
        connection.execute(text("ALTER TABLE dreams DROP COLUMN user_text"))
        connection.execute(text("INSERT INTO dreams (id, user_id, username) VALUES (7, 5, 'ann')"))
        connection.execute(text(TASK), {"id": "task"})
        for number in (1, 2):
            connection.execute(text(IMAGE), {"id": number, "task": "task", "key": f"dreams/{number}"})
    return url


def engine_of(url: str) -> Engine:
    parts = make_url(url)
    driven = parts.set(drivername="postgresql+psycopg") if "postgresql" in url else parts
    return create_engine(driven, poolclass=NullPool)


def images_of(url: str) -> list[Any]:
    with engine_of(url).connect() as connection:
        rows = connection.execute(text("SELECT * FROM dream_images ORDER BY id")).mappings()
        return [{name: value for name, value in row.items() if name not in NEWER} for row in rows]


def test_every_row_is_kept_and_pictures_outlive_their_task(old_url: str) -> None:
    """Rows, keys and every index with its condition are as in a new database; only the foreign key is gone."""
    before = images_of(old_url)
    migrate.upgrade(old_url)
    assert images_of(old_url) == before
    with engine_of(old_url).begin() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        dream = connection.execute(text("SELECT id, user_id, username, user_text FROM dreams")).one()
        assert tuple(dream) == (7, 5, "ann", None)
        inspector = inspect(connection)
        assert inspector.get_foreign_keys("dream_images") == []
        for table in ("dream_tasks", "dream_images"):
            found = {each["name"]: each for each in inspector.get_indexes(table)}
            for index in Base.metadata.tables[table].indexes:
                assert condition_of(found[index.name]) == condition_of(index), index.name
        connection.execute(text("DELETE FROM dream_tasks"))
        values = {"id": 3, "task": "gone", "key": "dreams/3"}
        connection.execute(text(IMAGE), values)
        with pytest.raises(SQLAlchemyError), connection.begin_nested():
            connection.execute(text(IMAGE), {**values, "id": 4})  # a key is still unique
    assert [bool(image["swept"]) for image in images_of(old_url)] == [False] * 3


def condition_of(index: Any) -> set[str]:
    """The words of an index's condition, without the casts and brackets that PostgreSQL adds."""
    options = index.dialect_kwargs if isinstance(index, Index) else index.get("dialect_options", {})
    told = " ".join(
        str(options[name]) for name in ("postgresql_where", "sqlite_where") if options.get(name) is not None
    )
    for added in ("::text", "[]", "::character varying", "ANY", "ARRAY", "(", ")", "[", "]", "=", "IN", ","):
        told = told.replace(added, " ")
    return set(told.split())


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from dream.db import migrate

def look(connection, cursor, statement, *rest):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "after_cursor_execute", look)
migrate.upgrade(sys.argv[1])
"""


@pytest.mark.parametrize("at", ["DROP CONSTRAINT", "INSERT INTO _alembic_tmp", "DROP TABLE", "RENAME TO", "_leased"])
@pytest.mark.slow
def test_whoever_is_killed_on_the_way_leaves_tables_that_the_next_one_upgrades(old_url: str, at: str) -> None:
    before = images_of(old_url)
    killed = subprocess.run([sys.executable, "-c", KILLED, old_url, at], timeout=60, check=False)
    happens = at in ("DROP CONSTRAINT", "_leased") if "postgresql" in old_url else at != "DROP CONSTRAINT"
    assert killed.returncode == (-signal.SIGKILL if happens else 0)
    assert images_of(old_url) == before
    migrate.upgrade(old_url)
    assert migrate.current(old_url) == migrate.head()
    assert images_of(old_url) == before


@pytest.mark.slow
def test_several_migrate_at_once(old_url: str) -> None:
    command = [sys.executable, "-c", "import sys; from dream.db import migrate; migrate.upgrade(sys.argv[1])", old_url]
    several = [subprocess.Popen(command) for _ in range(3)]
    assert [each.wait(timeout=60) for each in several] == [0, 0, 0]
    assert migrate.current(old_url) == migrate.head()


def test_an_index_that_was_interrupted_is_made_anew_and_stops_no_writer(old_postgres: str) -> None:
    """A transaction that writes is waited for, not locked out; who waits is shut down, and the next one builds."""
    engine = engine_of(url := old_postgres)
    with engine.connect() as writer:
        writer.execute(text("SELECT 1"))
        upgrading = threading.Thread(target=_upgrade_that_may_fail, args=(url,))
        migrate.upgrade(url, "0005")
        writer.execute(text(TASK), {"id": "open"})
        upgrading.start()
        asked = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONC%'"
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            pid = wait_for(lambda: other.scalar(text(asked)), what="the index")
            other.execute(text(TASK), {"id": "others"})  # nobody waits for the index
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            upgrading.join(timeout=30)
            invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
            assert other.scalar(text(invalid)) == 1
            writer.commit()
            migrate.upgrade(url)
            assert other.scalar(text(invalid)) == 0
            assert migrate.current(url) == migrate.head()


def test_a_run_that_holds_its_task_and_then_writes_its_picture_does_not_stop_an_upgrade(old_postgres: str) -> None:
    """The change locks the pictures and then the tasks, and a worker the other way round: PostgreSQL ends one of two
    that wait for each other."""
    failed: list[Exception] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(old_postgres)
        except SQLAlchemyError as error:
            failed.append(error)

    engine = engine_of(old_postgres)
    upgrading = threading.Thread(target=upgrade)
    with engine.connect() as worker, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        worker.execute(text("UPDATE dream_tasks SET resends = 0"))
        upgrading.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_for(lambda: other.scalar(text(waits)), what="the upgrade to wait for the tasks")
        worker.execute(text("UPDATE dream_images SET swept = false"))
        worker.commit()
    upgrading.join(timeout=60)
    assert failed == []
    assert migrate.current(old_postgres) == migrate.head()


def _upgrade_that_may_fail(url: str) -> None:
    with pytest.raises(SQLAlchemyError):
        migrate.upgrade(url)


def test_postgresql_vacuums_tasks_and_pictures_after_a_number_of_dead_rows(postgres_url: str) -> None:
    """A share of millions of rows would leave the indexes over open rows full of dead entries for hours."""
    with engine_of(postgres_url).begin() as connection:
        for table in ("dream_tasks", "dream_images"):
            query = text("SELECT reloptions FROM pg_class WHERE oid = to_regclass(:name)")
            options = connection.scalar(query, {"name": table})
            assert {"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=50000"} <= set(options)

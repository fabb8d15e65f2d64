"""PgBouncer in transaction mode: dream leaves nothing in a session, and needs nothing of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dream.db import Database, DreamTask, dreams, migrate, tasks
from dream.db.faults import explain
from dream.errors import DatabaseRefused, SettingsError
from dream.messages.registry import PROCESS_IMAGES
from dream.settings import Settings
from tests import pgbouncer
from tests.conftest import created_database

CLIENTS = 12


@pytest.fixture
def pooled_url(postgres_url: str, pgbouncer_port: int) -> str:
    return pgbouncer.through(pgbouncer_port, postgres_url)


def opened(url: str, **settings: Any) -> Database:
    return Database(Settings(database_url=url, database_pgbouncer=True, **settings))


def test_many_clients_share_few_connections_and_each_transaction_has_its_limits(
    pooled_url: str, postgres_url: str
) -> None:
    """And the limits end with the transaction: other clients of the pool keep their own."""
    database = opened(pooled_url, database_pool_size=CLIENTS, database_statement_timeout_s=7)

    def work(number: int) -> tuple[str, int]:
        for step in range(10):
            with database.begin() as session:
                tasks.add(session, task_id=f"{number}-{step}", name=PROCESS_IMAGES, args=[])
                limit = session.scalar(text("SHOW statement_timeout"))
                backend = session.scalar(text("SELECT pg_backend_pid()"))
        return str(limit), int(backend)

    with ThreadPoolExecutor(CLIENTS) as threads:
        found = list(threads.map(work, range(CLIENTS)))
    assert {limit for limit, _ in found} == {"7s"}
    assert database.engine.pool.checkedin() > pgbouncer.POOL_SIZE >= len({backend for _, backend in found})
    with database.read() as session:
        assert session.query(DreamTask).count() == CLIENTS * 10
        assert session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "0"
    database.dispose()


def test_a_new_database_is_migrated_through_it(postgres_server_url: str, pgbouncer_port: int) -> None:
    with created_database(postgres_server_url, "dream_pooled_new") as direct:
        url = pgbouncer.through(pgbouncer_port, direct)
        assert migrate.upgrade(url, behind_pgbouncer=True) is None
        assert migrate.current(url, behind_pgbouncer=True) == migrate.head()


def test_a_schema_is_used_through_it_and_migrated_beside_it(postgres_server_url: str, pgbouncer_port: int) -> None:
    with created_database(postgres_server_url, "dream_pooled_schema") as direct:
        url = pgbouncer.through(pgbouncer_port, direct)
        with pytest.raises(SettingsError, match="PostgreSQL's own address in DREAM_DATABASE_URL"):
            migrate.upgrade(url, schema="pictures", behind_pgbouncer=True)
        migrate.upgrade(direct, schema="pictures")
        assert migrate.current(url, schema="pictures", behind_pgbouncer=True) == migrate.head()
        database = opened(url, database_schema="pictures", owners_sql="SELECT 3, current_schema() WHERE :dream_id = 1")
        with database.begin() as session:
            tasks.add(session, task_id="one", name=PROCESS_IMAGES, args=[])
            session.flush()
            owner = dreams.owner_of(session, 1, "SELECT 3, current_schema() WHERE :dream_id = 1")
            assert owner is not None
            assert owner.username == "public"  # the owners' query sees the role's own path
            assert session.scalar(text("SELECT count(*) FROM dream_tasks")) == 1
        database.dispose()


def test_a_missing_setting_is_named(pooled_url: str) -> None:
    database = Database(Settings(database_url=pooled_url))
    with pytest.raises(DBAPIError) as raised, database.begin() as session:
        session.scalar(text("SELECT 1"))
    error = explain(raised.value)
    assert isinstance(error, DatabaseRefused)
    assert str(error).endswith(
        "unsupported startup parameter: options: behind PgBouncer set DREAM_DATABASE_PGBOUNCER=true"
    )
    database.dispose()

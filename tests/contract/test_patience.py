"""A PostgreSQL that falls silent in the middle of its work is left, and does not hold its thread for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import make_url

from dream.db import Database
from dream.db.patience import PatientConnection
from dream.settings import Settings
from tests.network import Proxy


class Hasty(PatientConnection):
    no_answer_s = 0.5


@pytest.fixture
def network(postgres_url: str) -> Iterator[Proxy]:
    url = make_url(postgres_url)
    with closing(Proxy((url.host or "", url.port or 5432))) as network:
        yield network


def test_a_server_that_does_not_answer_is_left(network: Proxy, postgres_url: str) -> None:
    """Its statement raises once the patience is over, and the connection is closed."""
    url = make_url(postgres_url).set(host="127.0.0.1", port=network.port).render_as_string(hide_password=False)
    with Hasty.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        network.swallow()
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match=r"not answered for 0\.5 s"):
            connection.execute("SELECT 2")
        assert 0.5 <= time.monotonic() - began < 5
        assert connection.closed


def test_a_server_that_works_for_longer_than_it_is_silent_is_waited_for(postgres_url: str) -> None:
    """The patience is for one answer, not for a connection's life."""
    with Hasty.connect(postgres_url) as connection:
        for _ in range(4):
            connection.execute("SELECT pg_sleep(0.2)")


def test_every_connection_of_ours_is_a_patient_one(postgres_url: str) -> None:
    """Longer than the server's own limit for a statement, so that a server that works answers first."""
    database = Database(Settings(database_url=postgres_url))
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, PatientConnection)
        [limit] = driver.execute("SHOW statement_timeout").fetchone() or [""]
        assert limit == "30s"
        assert driver.no_answer_s > 30
    database.dispose()

"""The connections of a process: its root closes what it made, and nothing that it was given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from dream import producer
from dream.db import Database
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.settings import Settings, load
from dream.work.connection import made_once
from tests.this_process import configured
from tests.unit.list_broker import ListBroker


class Closable(ListBroker):
    """A broker that knows whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path}/dream.db")


def is_open(database: Database, pool: object) -> bool:
    """Whether it still has the pool that it had: a database that is closed gets a new one."""
    return database.engine.pool is pool


def test_what_was_given_stays_open(settings: Settings) -> None:
    database, broker = Database(settings), Closable()
    pool = database.engine.pool
    Connections(settings, database=database, broker=cast("Any", broker)).close()
    assert is_open(database, pool)
    assert not broker.is_closed


def test_a_producer_closes_the_connections_that_it_made_and_no_others(settings: Settings) -> None:
    own, given = Producer(settings), Connections(settings)
    pools = own.database.engine.pool, given.database.engine.pool
    own.close()
    Producer(settings, given).close()
    assert (is_open(own.database, pools[0]), is_open(given.database, pools[1])) == (False, True)


def test_the_default_producer_of_other_settings_leaves_the_one_before_to_its_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may be in the middle of a call, whose connections must not be closed under it."""
    with configured({"DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/first.db"}):
        first = producer.default()
        pool = first.database.engine.pool
        assert producer.default() is first
        monkeypatch.setenv("DREAM_DATABASE_URL", f"sqlite:///{tmp_path}/second.db")
        load.cache_clear()
        second = producer.default()
        assert second is not first
        assert is_open(first.database, pool)
        monkeypatch.undo()


def test_two_threads_that_come_at_once_make_one_value() -> None:
    made: list[object] = []
    second = threading.Event()

    class Owner:
        @made_once
        def value(self) -> object:
            made.append(object())
            if len(made) > 1:
                second.set()
            second.wait(0.3)  # the other thread would make its own meanwhile
            return made[-1]

    owner, found = Owner(), list[object]()
    threads = [threading.Thread(target=lambda: found.append(owner.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [made[0], made[0]]
    assert isinstance(vars(Connections)["database"], made_once)

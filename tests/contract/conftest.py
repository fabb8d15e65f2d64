"""Fixtures of the contract tests: a broker of each kind, an actor that notes its calls, a real worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dramatiq
import pytest
from dramatiq import Message, Worker

from dream.db import Database
from dream.messages.registry import IMAGES_QUEUE, PROCESS_IMAGES
from dream.runs.sending import message_of, own_broker
from dream.settings import Settings
from dream.work.broker.redis import RedisBroker
from tests import pgbouncer
from tests.conftest import migrated_sqlite
from tests.queues import delete_queues
from tests.workers import running_broker

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker


#: The same code as on PostgreSQL or Valkey, once more. `test_pgbouncer.py` has what PgBouncer is about.
PGBOUNCER, REDIS = (pytest.param(name, marks=pytest.mark.slow) for name in ("pgbouncer", "redis"))


@pytest.fixture(params=["sqlite", "postgresql", PGBOUNCER])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = migrated_sqlite(tmp_path / "dream.db")
    else:
        url = request.getfixturevalue("postgres_url")
    is_pooled = request.param == "pgbouncer"
    if is_pooled:
        url = pgbouncer.through(request.getfixturevalue("pgbouncer_port"), url)
    database = Database(Settings(database_url=url, database_pgbouncer=is_pooled))
    yield database
    database.dispose()


@pytest.fixture
def is_pooled(request: pytest.FixtureRequest) -> bool:
    """Whether the test's database is reached through PgBouncer."""
    return bool(request.node.callspec.params["database"] == "pgbouncer")


@pytest.fixture(params=["valkey", REDIS, "rabbitmq"])
def broker_settings(
    request: pytest.FixtureRequest, environment: dict[str, str], settings_of: Callable[..., Settings]
) -> Iterator[Settings]:
    changes: dict[str, Any] = {"retry_first_s": 0.4, "max_retries": 2}
    if request.param == "redis":
        changes["broker_url"] = request.getfixturevalue("local_redis_url")
    elif request.param == "rabbitmq":
        changes["broker_url"] = request.getfixturevalue("local_rabbitmq_url")
        changes["queue_prefix"] = f"t{uuid4().hex[:12]}-"
    settings = settings_of(environment, **changes)
    yield settings
    _remove_what_is_left(settings)


def _remove_what_is_left(settings: Settings) -> None:
    broker = own_broker(settings)
    if isinstance(broker, RedisBroker):
        for key in broker.client.scan_iter(f"{settings.redis_prefix}:*"):
            broker.client.delete(key)
    else:
        delete_queues(settings)
    broker.close()


@pytest.fixture
def broker(broker_settings: Settings) -> Iterator[AnyBroker]:
    broker = running_broker(broker_settings)
    yield broker
    broker.close()


class Worked:
    """An actor that notes its calls and does what the test says."""

    def __init__(self, broker: AnyBroker, settings: Settings) -> None:
        self.calls: list[tuple[float, tuple[Any, ...]]] = []
        self.behaviour: Callable[[int], Any] = lambda _call: None
        self._lock = threading.Lock()
        queue = settings.queue_prefix + IMAGES_QUEUE
        dramatiq.actor(actor_name=PROCESS_IMAGES, queue_name=queue, broker=broker)(self._run)

    def _run(self, *args: Any) -> None:
        with self._lock:
            self.calls.append((time.monotonic(), args))
            call = len(self.calls)
        self.behaviour(call)


@pytest.fixture
def worked(broker: AnyBroker, broker_settings: Settings) -> Worked:
    return Worked(broker, broker_settings)


@pytest.fixture
def worker(broker: AnyBroker, worked: Worked) -> Iterator[Worker]:
    worker = Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    yield worker
    worker.stop(timeout=5000)


def message(settings: Settings, task_id: str = "task", attempt: int = 0) -> Message[Any]:
    return message_of(settings, task_id, PROCESS_IMAGES, [1, [], []], attempt=attempt)

"""The bridge with RabbitMQ as dream's own broker, which cannot tell whether it has a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
import redis

from dream.bridge import Moved
from dream.settings import Settings
from tests.conftest import wait_for
from tests.old_system import Old, old_system
from tests.processes import Parts
from tests.queues import delete_queues

pytestmark = pytest.mark.slow

#: A task that counts its runs, by their ids.
SHOP = """
import redis
from dream.compat import Celery
from dream.settings import load

app = Celery("shop")
runs = redis.Redis.from_url(load().events_url)

@app.task(name="shop.add", bind=True, default_retry_delay=1)
def add(self, x, y):
    runs.hincrby(f"{load().redis_prefix}:runs", f"{self.request.id}:{self.request.retries}", 1)
    if x == 0 and not self.request.retries:
        raise self.retry()
"""
POINTS = [
    f"{step}:{when}"
    for step in ("bridge_take", "bridge_publish", "bridge_hand_over", "bridge_accept", "bridge_park", "bridge_remove")
    for when in ("before", "after")
]


@pytest.fixture
def ours_on_rabbitmq(environment: dict[str, str], local_rabbitmq_url: str) -> None:
    environment["DREAM_REDIS_URL"] = environment["DREAM_BROKER_URL"]
    environment["DREAM_BROKER_URL"] = local_rabbitmq_url
    environment["DREAM_QUEUE_PREFIX"] = f"{environment['DREAM_REDIS_PREFIX']}-"


@pytest.fixture(params=["from-redis", "from-rabbitmq"])
def old(
    request: pytest.FixtureRequest, ours_on_rabbitmq: None, settings: Settings, as_environment: None
) -> Iterator[Old]:
    with old_system(settings, settings.events_url if request.param == "from-redis" else settings.broker_url) as old:
        yield old
    delete_queues(settings)


def renamed(message: dict[str, Any], task_id: str) -> dict[str, Any]:
    return message | {"headers": message["headers"] | {"id": task_id, "root_id": task_id}}


def test_a_bridge_that_is_killed_anywhere_leaves_tasks_that_run_once(
    old: Old, settings: Settings, environment: dict[str, str], made: list[dict[str, Any]], tmp_path: Path
) -> None:
    """It may leave two messages of one task; workers run one of them, and a retry of it too."""
    expected: dict[bytes, bytes] = {}
    for point in POINTS:
        old.put([renamed(each, f"{point} {number}") for number, each in enumerate(made)])
        assert old.move_and_die(f"{point}=kill") == -9
        old.move()
        assert old.move() == Moved()
        expected |= {f"{point} {number}:0".encode(): b"1" for number in range(3)}
        expected[f"{point} 0:1".encode()] = b"1"
    queue = f"{settings.queue_prefix}default"
    with pika.BlockingConnection(pika.URLParameters(settings.broker_url)) as connection:
        assert connection.channel().queue_declare(queue, passive=True).method.message_count > 4 * len(POINTS)

    (tmp_path / "shop.py").write_text(SHOP)
    parts = Parts({**environment, "PYTHONPATH": str(tmp_path)}, tmp_path)
    with redis.Redis.from_url(settings.events_url) as client:
        runs = f"{settings.redis_prefix}:runs"
        try:
            worker = parts.start("worker", "-A", "shop", "--threads", "4")
            wait_for(lambda: client.hgetall(runs).keys() >= expected.keys(), what="a run of each")  # type: ignore[union-attr]
            assert parts.stop(worker) == 0
            assert "copy_dropped" in parts.log_of(worker)
        finally:
            parts.end()
        assert client.hgetall(runs) == expected


def test_a_delivery_that_was_moved_within_a_day_is_a_duplicate(old: Old, made: list[dict[str, Any]]) -> None:
    old.put([made[0], made[0], made[1]])
    assert old.move() == Moved(handed_over=2, duplicates=1)
    old.put([made[1], made[2]])
    assert old.move() == Moved(handed_over=1, duplicates=1)

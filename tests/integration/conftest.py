"""Fixtures of the integration tests: the parts in this process, on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dream.producer import Producer
from dream.settings import Settings
from tests.old_system import CLEAN_UP, Old, celery, old_system
from tests.this_process import configured


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    producer = Producer(settings)
    yield producer
    producer.database.dispose()


# --- the bridge


@pytest.fixture
def as_environment(environment: dict[str, str], settings: Settings) -> Iterator[None]:
    """This process is configured as the bridge's would be."""
    with configured(environment):
        yield


#: Brokers of the machine, by the fixtures that name them.
_URLS = {"other-redis": "local_redis_url", "rabbitmq": "local_rabbitmq_url"}


@pytest.fixture(params=["same-redis", "other-redis", "rabbitmq"])
def old(request: pytest.FixtureRequest, settings: Settings, as_environment: None) -> Iterator[Old]:
    url = settings.broker_url if request.param == "same-redis" else request.getfixturevalue(_URLS[request.param])
    with old_system(settings, url) as old:
        yield old


@pytest.fixture
def old_redis(settings: Settings, as_environment: None) -> Iterator[Old]:
    with old_system(settings, settings.broker_url) as old:
        yield old


@pytest.fixture(scope="session")
def made(servers: dict[str, str]) -> list[dict[str, Any]]:
    """Messages that the real Celery has made: three of an app's, one of ours, one that nobody knows."""
    url = servers["DREAM_BROKER_URL"]
    celery(
        url,
        f"""
app.conf.task_default_queue = "made"
for number in range(3):
    send("shop.add", [number, 1], task_id=f"add-{{number}}")
send({CLEAN_UP!r}, task_id="clean-up")
send("nobody.knows", [1], task_id="unknown")
""",
    )
    with redis.Redis.from_url(url) as client:
        messages: Any = client.lrange("made", 0, -1)
        client.delete("made")
    return [json.loads(message) for message in reversed(messages)]

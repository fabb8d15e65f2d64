"""Our broker and retries are Dramatiq's with more: whoever builds on the stock ones can build on ours."""

from __future__ import annotations

import inspect
import time
from typing import Any
from uuid import uuid4

import dramatiq
import redis
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from dramatiq.common import xq_name
from dramatiq.middleware import Retries as StockRetries

from dream.broker.redis import RedisBroker
from dream.middleware.retries import Retries
from tests.conftest import wait_for


class SomebodysBroker(RedisBroker):
    """A subclass, as another project would write it."""


class SomebodysRetries(Retries):
    """A subclass, as another project would write it."""


def keywords_of(stock: type) -> set[str]:
    """What the stock constructor names; `**parameters` go to the client."""
    parameters = inspect.signature(stock.__init__).parameters.values()  # type: ignore[misc]
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_retries_take_every_stock_keyword_and_mean_the_same() -> None:
    given: dict[str, Any] = {"max_retries": 3, "min_backoff": 7, "max_backoff": 11, "retry_when": lambda *_: True}
    assert given.keys() == keywords_of(StockRetries)
    for keywords in (given, {}):
        ours, stock = SomebodysRetries(**keywords), StockRetries(**keywords)
        for name in given:
            assert getattr(ours, name) == getattr(stock, name)
        assert ours.actor_options >= stock.actor_options


def test_a_redis_broker_takes_every_stock_keyword_and_means_the_same(servers: dict[str, str]) -> None:
    url = servers["DREAM_BROKER_URL"]
    numbers = {"maintenance_chance": 5, "heartbeat_timeout": 7, "dead_message_ttl": 11}
    given: dict[str, Any] = {"namespace": "theirs", "middleware": [StockRetries()], **numbers}
    assert given.keys() | {"url", "client"} == keywords_of(StockRedisBroker)
    client = redis.Redis.from_url(url)
    parts = client.connection_pool.connection_kwargs
    connections: list[dict[str, Any]] = [
        {"url": url},
        {"client": client},
        {name: parts[name] for name in ("host", "port", "password", "db")},
    ]
    for connection in connections:
        broker = SomebodysBroker(**given, **connection)
        assert broker.client.ping()
        assert {name: getattr(broker, name) for name in numbers} == numbers
        assert broker.namespace == "theirs"
        broker.close()
    default, stock = SomebodysBroker(url=url), StockRedisBroker(url=url)
    assert [type(each) for each in default.middleware] == [type(each) for each in stock.middleware]
    assert default.namespace == stock.namespace
    client.close()


def test_stock_retries_and_dead_letters_through_ours(servers: dict[str, str]) -> None:
    """Without our policy: three runs with the actor's own back-off, then a dead letter; others' messages run too."""
    broker = SomebodysBroker(
        url=servers["DREAM_BROKER_URL"], namespace=f"t{uuid4().hex[:12]}", middleware=[SomebodysRetries()]
    )
    runs: list[float] = []
    others: list[int] = []

    @dramatiq.actor(broker=broker, max_retries=2, min_backoff=100, max_backoff=100)
    def fail() -> None:
        runs.append(time.monotonic())
        raise TypeError("stock tries these again, too")

    @dramatiq.actor(broker=broker)
    def note(number: int) -> None:
        others.append(number)

    worker = Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        sent = fail.send()
        for number in range(20):
            note.send_with_options(args=(number,), delay=50 if number % 2 else None)
        dead = f"{broker.namespace}:{xq_name('default')}"
        wait_for(lambda: broker.client.zcard(dead) == 1, what="the dead letter")
        broker.join("default", timeout=10_000)
        worker.join()
    finally:
        worker.stop(timeout=5000)
        broker.close()
    assert len(runs) == 3
    assert sorted(others) == list(range(20))
    assert sent.message_id.encode() in broker.client.hvals(f"{dead}.msgs")[0]

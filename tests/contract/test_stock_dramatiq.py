"""Our broker and retries are Dramatiq's with more: whoever builds on the stock ones can build on ours."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
import redis
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker as StockRedisBroker
from dramatiq.brokers.redis import _scripts as stock_scripts
from dramatiq.common import xq_name
from dramatiq.middleware import Retries as StockRetries

from dream.work import broker as broker_package
from dream.work.broker.redis import RedisBroker
from dream.work.middleware.retries import Retries
from tests.conftest import wait_for


class SomebodysBroker(RedisBroker):
    """A subclass, as another project would write it."""


class SomebodysRetries(Retries):
    """A subclass, as another project would write it."""


def keywords_of(stock: type) -> set[str]:
    """The names of the stock constructor; `**parameters` go to the client."""
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


# --- the dispatch script

#: The command, then its arguments.
Call = tuple[Any, ...]
#: Calls as Dramatiq's Python broker makes them, by the command that they try.
CALLS: dict[str, list[Call]] = {
    "enqueue": [("enqueue", "a", "1"), ("enqueue", "b", "2"), ("enqueue", "a", "3")],
    "fetch": [("enqueue", "a", "1"), ("enqueue", "b", "2"), ("fetch", 1), ("fetch", 5), ("fetch", 5), ("fetch", 0)],
    "ack": [("enqueue", "a", "1"), ("ack", "a"), ("fetch", 1), ("ack", "a"), ("ack", "a"), ("qsize",)],
    "nack": [("enqueue", "a", "1"), ("nack", "a"), ("fetch", 1), ("nack", "a"), ("nack", "a"), ("qsize",)],
    "requeue": [("enqueue", "a", "1"), ("enqueue", "b", "2"), ("fetch", 2), ("requeue", "b", "a", "none"), ("qsize",)],
    "purge": [("enqueue", "a", "1"), ("enqueue", "b", "2"), ("fetch", 1), ("nack", "a"), ("purge",), ("qsize",)],
    "qsize": [("enqueue", "a", "1"), ("enqueue", "b", "2"), ("qsize",), ("fetch", 1), ("qsize",), ("purge",)],
}


def test_the_stock_script_has_the_commands_and_arguments_of_ours() -> None:
    """A release of Dramatiq with another script is noticed here; then `dispatch.lua` must follow."""
    stock = stock_scripts["dispatch"].decode()
    ours = Path(broker_package.__file__).with_name("dispatch.lua").read_text("utf-8")
    commands = set(re.findall(r'command == "(\w+)"', stock))
    assert commands == set(re.findall(r"function commands\.(\w+)\(", ours)) == CALLS.keys()
    [arguments] = re.findall(r"args=\[(.*), \.\.\.\]", stock)
    assert arguments == (
        "command, timestamp, queue_name, worker_id, heartbeat_timeout, dead_message_ttl, do_maintenance, "
        "max_unpack_size"
    )
    assert re.findall(r'namespace \.\. "(:__\w+__)', stock) == [":__acks__", ":__heartbeats__", ":__acks__"]


@pytest.mark.parametrize("queue", ["default", "default.DQ"])
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_our_script_replies_and_writes_as_the_stock_one(servers: dict[str, str], queue: str, calls: list[Call]) -> None:
    assert _seen(RedisBroker, servers, queue, calls) == _seen(StockRedisBroker, servers, queue, calls)


def test_our_script_requeues_of_the_dead_and_drops_old_dead_letters_as_the_stock_one(servers: dict[str, str]) -> None:
    """A broker that is silent for 50 ms is dead to another; its message comes back, and an old dead letter goes."""
    seen = []
    for kind in (RedisBroker, StockRedisBroker):
        how: dict[str, Any] = {"heartbeat_timeout": 50, "dead_message_ttl": 50, "maintenance_chance": 1_000_000}
        namespace = f"t{uuid4().hex[:12]}"
        dead, alive = (kind(url=servers["DREAM_BROKER_URL"], namespace=namespace, **how) for _ in range(2))
        for name in "ab":
            dead.do_enqueue("default", name, name)
        dead.do_fetch("default", 2)
        dead.do_nack("default", "b")
        fetched = wait_for(_fetching(alive), what="the message of the dead broker")
        alive.do_ack("default", "a")
        wait_for(_is_forgotten(alive, dead), what="the end of the dead broker")
        # Ours remembers when it asked for the keys of a dead worker.
        state = {name: value for name, value in _state(alive).items() if not name.startswith("__looked__")}
        seen.append(([each.strip() for each in fetched], state))
        for each in (dead, alive):
            each.client.close()
    assert seen[0] == seen[1]


def _fetching(broker: StockRedisBroker) -> Callable[[], list[bytes]]:
    return lambda: broker.do_fetch("default", 2)


def _is_forgotten(broker: StockRedisBroker, dead: StockRedisBroker) -> Callable[[], bool]:
    def is_forgotten() -> bool:
        broker.do_fetch("default", 0)
        return broker.client.zscore(f"{broker.namespace}:__heartbeats__", dead.broker_id) is None

    return is_forgotten


def _seen(kind: type[StockRedisBroker], servers: dict[str, str], queue: str, calls: list[Call]) -> list[Any]:
    """The replies to the calls, and the keys after each."""
    broker = kind(url=servers["DREAM_BROKER_URL"], namespace=f"t{uuid4().hex[:12]}", maintenance_chance=1_000_000)
    seen = [(getattr(broker, f"do_{name}")(queue, *arguments), _state(broker)) for name, *arguments in calls]
    broker.client.close()
    return seen


def _state(broker: StockRedisBroker) -> dict[str, Any]:
    """The contents of Redis under the broker's namespace; instead of times, only whose they are."""
    state: dict[str, Any] = {}
    reading: dict[bytes, Callable[[Any], Any]] = {
        b"list": lambda key: broker.client.lrange(key, 0, -1),
        b"hash": broker.client.hgetall,
        b"set": broker.client.smembers,
        b"zset": lambda key: broker.client.zrange(key, 0, -1),
        b"string": broker.client.get,
    }
    for key in broker.client.scan_iter(f"{broker.namespace}:*"):
        name = key.decode().removeprefix(f"{broker.namespace}:").replace(broker.broker_id, "worker")
        value = reading[broker.client.type(key)](key)
        state[name] = [len(value)] if name == "__heartbeats__" else value
    return state


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

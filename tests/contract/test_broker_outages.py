"""Brokers that go away, fall silent or are full: nothing that they were given is lost, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import redis
from dramatiq import Worker
from dramatiq.common import dq_name
from dramatiq.errors import ConnectionClosed

from dream.errors import BrokerUnavailable
from dream.runs.sending import own_broker
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.rabbitmq import patient
from tests.conftest import wait_for
from tests.contract.conftest import Worked, message
from tests.network import Proxy
from tests.workers import running_broker

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker

pytestmark = pytest.mark.slow


class Cut:
    """A broker behind a network of the test's, with a worker on it.

    Parameters:
      settings: of the broker itself.
      patience: what is added to its URL.
    """

    def __init__(self, settings: Settings, patience: str = "") -> None:
        parts = urlsplit(settings.broker_url)
        self.network = Proxy((parts.hostname or "", parts.port or 0))
        netloc = parts.netloc.rpartition("@")[0]
        address = f"{netloc}@127.0.0.1:{self.network.port}" if netloc else f"127.0.0.1:{self.network.port}"
        url = parts._replace(netloc=address, query=patience).geturl()
        self.settings = settings.model_copy(update={"broker_url": url})
        self.broker: AnyBroker = running_broker(self.settings)
        self.worked = Worked(self.broker, self.settings)

    def close(self) -> None:
        self.network.restore()
        self.broker.close()
        self.network.close()


@pytest.fixture
def cut(broker_settings: Settings) -> Iterator[Cut]:
    patience = "socket_timeout=1" if broker_settings.broker_url.startswith("redis") else "stack_timeout=1"
    with closing(Cut(broker_settings, patience)) as cut:
        yield cut


@pytest.mark.parametrize("broker_settings", ["valkey", "rabbitmq"], indirect=True)
def test_delayed_messages_outlive_a_network_cut(cut: Cut) -> None:
    """Fetched, and waiting in the worker for their time, when its connections break: they run, each once, not early."""
    worker = Worker(cut.broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        due = time.monotonic() + 1.0
        for number in range(5):
            send(cut.broker, message(cut.settings, f"task-{number}"), delay_s=1.0)
        delayed = worker.consumers[dq_name(message(cut.settings).queue_name)]
        wait_for(lambda: delayed.delay_queue.qsize() == 5, what="five messages that wait in the worker")
        cut.network.cut()
        cut.network.restore()
        wait_for(lambda: len(cut.worked.calls) >= 5, what="five runs")
        with closing(own_broker(cut.settings)) as broker:
            broker.join(message(cut.settings).queue_name, timeout=30_000)
    finally:
        worker.stop(timeout=5000)
    assert len(cut.worked.calls) == 5
    assert all(at >= due for at, _ in cut.worked.calls)


@pytest.mark.parametrize("broker_settings", ["valkey", "rabbitmq"], indirect=True)
def test_a_send_that_is_cut_is_an_outage_to_dramatiq(cut: Cut) -> None:
    """A consumer's thread sends what is due; at any other error it would keep messages that another has by then."""
    cut.broker.enqueue(message(cut.settings, "before"))
    cut.network.cut()
    with pytest.raises(ConnectionClosed):
        cut.broker.enqueue(message(cut.settings, "meanwhile"))


@pytest.mark.parametrize("broker_settings", ["valkey", "rabbitmq"], indirect=True)
def test_a_silent_broker_is_one_error_soon_and_serves_again(cut: Cut) -> None:
    """It takes connections and bytes, and answers nothing; here for as long as 1 s."""
    cut.network.swallow()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        send(cut.broker, message(cut.settings, "meanwhile"))
    assert time.monotonic() - began < 5
    cut.network.cut()
    cut.network.restore()
    send(cut.broker, message(cut.settings, "after"))


def test_rabbitmq_is_never_waited_for_without_end() -> None:
    """All of its clocks run by default; those that the URL names stay as they are."""
    url = patient("amqp://guest@localhost/%2F?heartbeat=60")
    assert "heartbeat=60" in url
    assert all(clock in url for clock in ("blocked_connection_timeout=", "socket_timeout=", "stack_timeout="))


@pytest.mark.parametrize("broker_settings", ["valkey"], indirect=True)
def test_a_full_memory_is_an_outage_like_any_other(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    """A message in work is acked once there is room; what is waiting then runs; each once."""
    client = redis.Redis.from_url(broker_settings.broker_url)
    full_at: list[float] = []

    def fill(call: int) -> None:
        if call == 1:
            send(broker, message(broker_settings, "waiting"))
            client.config_set("maxmemory", 1)
            full_at.append(time.monotonic())

    worked.behaviour = fill
    send(broker, message(broker_settings, "in work"))
    try:
        wait_for(lambda: full_at, what="a full memory")
        with pytest.raises(BrokerUnavailable):
            send(broker, message(broker_settings, "refused"))
    finally:
        client.config_set("maxmemory", 0)
    wait_for(lambda: len(worked.calls) == 2, what="the waiting message's run")
    worker.join()
    wait_for(lambda: broker.do_qsize(message(broker_settings).queue_name) == 0, what="an empty queue")  # type: ignore[union-attr]
    assert len(worked.calls) == 2
    client.close()


@pytest.mark.parametrize("broker_settings", ["valkey"], indirect=True)
def test_a_queue_that_has_filled_the_memory_is_worked_off(
    broker: AnyBroker, broker_settings: Settings, worked: Worked
) -> None:
    """Waiting and delayed messages stay; only new ones are refused."""
    for number in range(5):
        send(broker, message(broker_settings, f"waiting-{number}"))
    send(broker, message(broker_settings, "delayed"), delay_s=0.2)
    with redis.Redis.from_url(broker_settings.broker_url) as client:
        client.config_set("maxmemory", 1)
        worker = Worker(broker, worker_threads=2, worker_timeout=50)
        worker.start()
        try:
            with pytest.raises(BrokerUnavailable):
                send(broker, message(broker_settings, "refused"))
            wait_for(lambda: len(worked.calls) == 6, what="six runs")
            queue = message(broker_settings).queue_name
            wait_for(lambda: client.hlen(f"{broker_settings.redis_prefix}:{queue}.msgs") == 0, what="an empty queue")
        finally:
            client.config_set("maxmemory", 0)
            worker.stop(timeout=5000)
    assert len(worked.calls) == 6


@pytest.mark.parametrize("broker_settings", ["valkey"], indirect=True)
def test_what_is_done_is_acked_though_the_last_connection_is_lost(cut: Cut) -> None:
    """A worker that stops asks no more: what it could not say then would be run again."""
    send(cut.broker, message(cut.settings))
    consumer = cut.broker.consume(message(cut.settings).queue_name, prefetch=4, timeout=50)
    held = wait_for(lambda: next(consumer), what="the message")
    thread = threading.Thread(target=consumer.ack, args=(held,))
    thread.start()
    thread.join()
    cut.network.cut()
    cut.network.restore()
    consumer.close()
    with closing(own_broker(cut.settings)) as broker:
        assert broker.do_qsize(message(cut.settings).queue_name) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("broker_settings", ["valkey"], indirect=True)
def test_a_dead_workers_queue_that_nobody_takes_from_costs_no_walk_through_all_keys(
    broker: AnyBroker, broker_settings: Settings
) -> None:
    """Its messages wait for a worker of that queue; the others look for messages of dead workers each second."""
    queue, prefix = message(broker_settings).queue_name, broker_settings.redis_prefix
    with redis.Redis.from_url(broker_settings.broker_url) as client:
        client.zadd(f"{prefix}:__heartbeats__", {"dead": 1})
        client.sadd(f"{prefix}:__acks__.dead.special", "message")
        walks = _walks(client)
        for _ in range(5):
            broker.do_fetch(queue, 0)  # type: ignore[union-attr]
        assert _walks(client) - walks <= 1
        assert client.zscore(f"{prefix}:__heartbeats__", "dead") is not None


def _walks(client: redis.Redis) -> int:
    used: Any = client.info("commandstats")
    return int(used.get("cmdstat_keys", {"calls": 0})["calls"])

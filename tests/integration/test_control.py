"""`app.control`: what real workers answer when they are asked, and what a purge throws away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Worker

from dream.compat import Celery
from dream.compat.exceptions import OperationalError, Unsupported
from dream.settings import Settings, load
from dream.work.messages import DEFAULT_QUEUE
from dream.work.questions import Question, answers_key, channel_of
from tests.conftest import wait_for
from tests.queues import delete_queues
from tests.this_process import configured
from tests.workers import answering_broker


class Shop:
    """Two workers of one thread each; their task runs until the test lets it go."""

    def __init__(self, settings: Settings) -> None:
        self.app = Celery("shop")
        self.gate = threading.Event()
        self.ran: list[tuple[Any, ...]] = []
        self.workers: list[Worker] = []
        for name in ("one", "two"):
            broker = answering_broker(settings, name)
            queue = settings.queue_prefix + DEFAULT_QUEUE
            self.send = dramatiq.actor(actor_name="shop.wait", queue_name=queue, broker=broker)(self._wait)
            self.workers.append(Worker(broker, worker_threads=1, worker_timeout=50))

    def _wait(self, *arguments: Any) -> None:
        assert self.gate.wait(20)
        self.ran.append(arguments)

    def start(self) -> None:
        for worker in self.workers:
            worker.start()
        wait_for(lambda: len(self.app.control.ping()) == 2, what="both workers")

    def stop(self) -> None:
        self.gate.set()
        for worker in self.workers:
            worker.stop()
            worker.broker.close()


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that is taken and not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(params=["valkey", "rabbitmq"])
def shop(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    settings_of: Callable[..., Settings],
) -> Iterator[Shop]:
    if request.param == "rabbitmq":
        environment["DREAM_REDIS_URL"] = environment["DREAM_BROKER_URL"]
        environment["DREAM_BROKER_URL"] = request.getfixturevalue("local_rabbitmq_url")
        environment["DREAM_QUEUE_PREFIX"] = f"t{environment['DREAM_REDIS_PREFIX']}-"
    with configured(environment) as settings:
        shop = Shop(settings)
        yield shop
        shop.stop()
        if request.param == "rabbitmq":
            delete_queues(settings)


@pytest.mark.parametrize("shop", ["valkey"], indirect=True)
def test_workers_say_what_they_do_and_what_waits_in_them(shop: Shop) -> None:
    shop.start()
    with redis.Redis.from_url(load().events_url) as stranger:
        for noise in (b"\xff", b"[" * 100_000, b"5", b'{"command": [], "ticket": "a"}'):
            assert stranger.publish(channel_of(load().redis_prefix), noise) == 2
    inspect = shop.app.control.inspect(timeout=5)
    for number in range(6):
        shop.send.send("order", number)
    shop.send.send_with_options(delay=60_000)
    wait_for(lambda: all((inspect.active() or {}).values()), what="a run in each worker")
    wait_for(lambda: any((inspect.reserved() or {}).values()), what="what is fetched")
    wait_for(lambda: any((inspect.scheduled() or {}).values()), what="what is not due")

    active = [task for tasks in (inspect.active() or {}).values() for task in tasks]
    assert {(task["name"], task["args"][0], task["hostname"]) for task in active} == {
        ("shop.wait", "order", "one"),
        ("shop.wait", "order", "two"),
    }
    assert inspect.registered() == {"one": ["shop.wait"], "two": ["shop.wait"]}
    assert (inspect.active_queues() or {})["one"] == [{"name": DEFAULT_QUEUE}, {"name": "dream_image_processing"}]
    assert (inspect.stats() or {})["two"]["pool"]["max-concurrency"] == 1
    assert shop.app.control.inspect(["one"]).ping() == {"one": {"ok": "pong"}}
    assert shop.app.control.inspect(["nobody"], timeout=0.1).ping() is None
    shop.gate.set()
    wait_for(lambda: len(shop.ran) == 6, what="the end of all runs")
    assert sum((worker["total"]["shop.wait"]) for worker in (inspect.stats() or {}).values()) == 6


@pytest.mark.parametrize("shop", ["valkey"], indirect=True)
def test_the_wait_ends_with_the_last_answer_not_with_its_time_out(shop: Shop) -> None:
    shop.start()
    began = time.monotonic()
    assert len(shop.app.control.ping(timeout=10)) == 2
    assert shop.app.control.broadcast("ping", reply=True, timeout=10, destination=["one"]) == [{"one": {"ok": "pong"}}]
    assert time.monotonic() - began < 5


def test_a_purge_throws_away_what_waits_and_says_how_much(shop: Shop) -> None:
    """Delayed tasks too; what is sent afterwards is run."""
    for _ in range(3):
        shop.send.send()
    shop.send.send_with_options(delay=60_000)
    assert shop.app.control.purge() == 4
    assert shop.app.control.purge() == 0
    shop.gate.set()
    shop.send.send("after")
    shop.start()
    wait_for(lambda: shop.ran == [("after",)], what="the run of what came after")


def test_without_redis_workers_cannot_be_asked(refused_port: int) -> None:
    with configured({"DREAM_BROKER_URL": f"redis://127.0.0.1:{refused_port}/0"}):
        with pytest.raises(OperationalError, match="workers cannot be asked"):
            Celery("shop").control.ping()
        with pytest.raises(OperationalError, match="the broker did not answer"):
            Celery("shop").control.purge()


@pytest.mark.parametrize("shop", ["valkey"], indirect=True)
def test_an_answer_that_is_none_is_told_as_that(shop: Shop) -> None:
    settings = load()
    with (
        redis.Redis.from_url(settings.events_url) as stranger,
        stranger.pubsub() as channel,
        ThreadPoolExecutor(1) as pool,
    ):

        def answer() -> None:
            asked: Any = wait_for(
                lambda: channel.get_message(ignore_subscribe_messages=True, timeout=1), what="a question"
            )
            stranger.rpush(answers_key(settings.redis_prefix, Question.decode(asked["data"]).ticket), "no answer")

        channel.subscribe(channel_of(settings.redis_prefix))
        channel.get_message(timeout=5)
        answering = pool.submit(answer)
        with pytest.raises(OperationalError, match="workers cannot be asked"):
            shop.app.control.ping(timeout=10)
        answering.result()


@pytest.mark.parametrize("command", ["rate_limit", "pool_grow", "shutdown", "add_consumer"])
def test_what_workers_cannot_be_told_is_refused_by_name(command: str) -> None:
    with pytest.raises(Unsupported, match=rf"control\.{command} is not supported: \w+"):
        Celery("shop").control.broadcast(command)
    with pytest.raises(Unsupported, match=rf"control\.{command} is not supported: \w+"):
        getattr(Celery("shop").control, command)("shop.wait", "1/s")

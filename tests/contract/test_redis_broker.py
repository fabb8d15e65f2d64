"""Additional contract of brokers that can be asked for their messages: Valkey and Redis."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from dramatiq import Message, Worker
from dramatiq.common import dq_name

from dream.messages.registry import IMAGES_QUEUE, PROCESS_IMAGES
from dream.runs.sending import own_broker
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DELIVERY_ID, SERIES, delivery_id
from tests.conftest import wait_for
from tests.contract.conftest import REDIS, Worked, message

pytestmark = pytest.mark.parametrize("broker_settings", ["valkey", REDIS], indirect=True)


@pytest.fixture
def redis_broker(broker: object) -> RedisBroker:
    assert isinstance(broker, RedisBroker)
    return broker


def test_a_delivery_is_queued_only_once(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    for _ in range(3):
        send(redis_broker, message(broker_settings))
    assert redis_broker.client.llen(f"{redis_broker.namespace}:{queue}") == 1


def test_a_waiting_retry_is_not_doubled(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    """The sweep asks the delay queue too."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings, attempt=1), delay_s=60)
    assert not redis_broker.enqueue_missing(message(broker_settings, attempt=1))
    names = [delivery_id("task", 1), delivery_id("other", 0)]
    assert redis_broker.missing(queue, names) == {delivery_id("other", 0)}
    assert redis_broker.enqueue_missing(message(broker_settings, "other"))


@pytest.mark.parametrize("delay_s", [0, 0.2])
def test_the_newest_of_a_series_is_not_queued_again_once_it_was_worked_on(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked, worker: Worker, delay_s: float
) -> None:
    """A delayed message is queued twice: until it is due, and then."""
    for number, name in enumerate(("one", "two"), start=1):
        of_series = message(broker_settings, name).copy(options={SERIES: "tick"})
        send(redis_broker, of_series, delay_s)
        wait_for(lambda number=number: len(worked.calls) == number, what=f"the run of {name}")
        redis_broker.join(of_series.queue_name, timeout=5000)
        send(redis_broker, of_series, delay_s)
    time_for_more = message(broker_settings, "last")
    send(redis_broker, time_for_more, 2 * delay_s)
    wait_for(lambda: len(worked.calls) == 3, what="the run of another message")


def test_a_lost_reply_to_a_fetch_strands_nothing(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked
) -> None:
    """Messages that were fetched but never arrived are put back when the consumer reconnects."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    assert redis_broker.do_fetch(queue, 10)  # the reply is lost here
    worker = Worker(redis_broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_for(lambda: worked.calls, what="the run")
    finally:
        worker.stop(timeout=5000)


def test_a_message_in_work_is_no_orphan(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    consumer = redis_broker.consume(queue, prefetch=1, timeout=50)
    held = next(consumer)
    assert held is not None
    redis_broker.requeue_orphans(queue)
    assert redis_broker.client.llen(f"{redis_broker.namespace}:{queue}") == 0
    consumer.ack(held)
    assert redis_broker.do_qsize(queue) == 0


def test_a_dead_workers_messages_come_back(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked
) -> None:
    """A broker that fetched and was killed is noticed by its silence; here after 1 s."""
    settings = broker_settings.model_copy(update={"heartbeat_s": 1.0})
    dead, alive = own_broker(settings), own_broker(settings)
    assert isinstance(dead, RedisBroker)
    again = Worked(alive, settings)
    queue = settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(settings))
    assert dead.do_fetch(queue, 1)
    worker = Worker(alive, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        wait_for(lambda: again.calls, timeout_s=10, what="the run on another worker")
    finally:
        worker.stop(timeout=5000)


def test_what_a_dead_worker_had_goes_before_a_backlog(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    """It waited its turn once; behind ten thousand others it would wait for hours, not for 20 s."""
    settings = broker_settings.model_copy(update={"heartbeat_s": 0.3})
    dead, alive = own_broker(settings), own_broker(settings)
    queue = settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(settings, "in work"))
    assert dead.do_fetch(queue, 1)  # type: ignore[union-attr]
    for number in range(5):
        send(redis_broker, message(settings, f"waiting-{number}"))
    first = wait_for(lambda: alive.do_qsize(queue) and _first_if(redis_broker, queue, "in work"), what="its message")
    assert first == delivery_id("in work", 0)


def _first_if(broker: RedisBroker, queue: str, task_id: str) -> str:
    """The first delivery in the queue once that task's is anywhere in it."""
    waiting: Any = broker.client.lrange(f"{broker.namespace}:{queue}", 0, -1)
    return waiting[0].decode() if delivery_id(task_id, 0).encode() in waiting else ""


def test_a_workers_wrong_clock_kills_no_worker(
    redis_broker: RedisBroker, broker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats carry the server's time: a worker two hours ahead takes nothing from its neighbours."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    assert redis_broker.do_fetch(queue, 1)
    ahead = own_broker(broker_settings)
    assert isinstance(ahead, RedisBroker)
    monkeypatch.setattr("dramatiq.brokers.redis.current_millis", lambda: int(time.time() * 1000) + 7_200_000)
    assert ahead.do_fetch(queue, 1) == []


def test_messages_of_others_keep_stock_behaviour(
    redis_broker: RedisBroker, broker_settings: Settings, worked: Worked
) -> None:
    """A message that names no delivery may be sent twice, as with stock Dramatiq."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    plain = Message(queue_name=queue, actor_name=PROCESS_IMAGES, args=(), kwargs={}, options={})
    assert DELIVERY_ID not in plain.options
    redis_broker.enqueue(plain)
    redis_broker.enqueue(plain)
    assert redis_broker.client.llen(f"{redis_broker.namespace}:{queue}") == 2


def test_a_message_handed_back_is_never_removed_by_its_own_ack(
    redis_broker: RedisBroker, broker_settings: Settings
) -> None:
    """The same worker may fetch it again at once, as it does in a run that goes on, or while it stops."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    consumer = redis_broker.consume(queue, prefetch=2, timeout=100)
    for _ in range(3):
        held = wait_for(lambda: next(consumer), what="the message")
        redis_broker.requeue(held)
        next(consumer)
        consumer.ack(held)
        assert redis_broker.missing(queue, [delivery_id("task", 0)]) == set()


def test_a_message_that_is_put_back_before_the_ack_of_its_move_stays(
    redis_broker: RedisBroker, broker_settings: Settings
) -> None:
    """A delayed message that is due moves to its queue; another worker may run it and put it back at once."""
    queue, other = broker_settings.queue_prefix + IMAGES_QUEUE, own_broker(broker_settings)
    send(redis_broker, message(broker_settings), delay_s=0.01)
    delaying, running = (b.consume(q, 1, 50) for b, q in ((redis_broker, dq_name(queue)), (other, queue)))
    delayed = wait_for(lambda: next(delaying), what="the delayed message")
    redis_broker.enqueue(delayed.copy(queue_name=queue))
    run = wait_for(lambda: next(running), what="the message that is due")
    other.enqueue(run._message, delay=60_000)
    delaying.ack(delayed)
    running.ack(run)
    assert other.missing(queue, [delivery_id("task", 0)]) == set()
    assert redis_broker.client.llen(f"{redis_broker.namespace}:{dq_name(queue)}") == 1


@pytest.mark.parametrize("then", ["ask", "close", "reconnect"])
def test_what_other_threads_have_done_is_acked_by_the_consumers(
    redis_broker: RedisBroker, broker_settings: Settings, then: str
) -> None:
    """It is held until then, and gone afterwards; it is not run again."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    consumer = redis_broker.consume(queue, prefetch=4, timeout=50)
    held = wait_for(lambda: next(consumer), what="the message")
    thread = threading.Thread(target=consumer.ack, args=(held,))
    thread.start()
    thread.join()
    assert redis_broker.missing(queue, [delivery_id("task", 0)]) == set()
    if then == "reconnect":
        consumer = redis_broker.consume(queue, prefetch=4, timeout=50)
    if then == "ask":
        assert next(consumer) is None
    elif then == "close":
        consumer.close()
    assert redis_broker.do_qsize(queue) == 0


def test_a_worker_that_ends_puts_back_what_no_thread_had(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    """Else it came back as that of a dead worker, when its heartbeat is missed."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    for number in range(3):
        send(redis_broker, message(broker_settings, f"task-{number}"))
    consumer = redis_broker.consume(queue, prefetch=4, timeout=50)
    held = wait_for(lambda: next(consumer), what="a message")
    consumer.close()
    waiting: Any = redis_broker.client.lrange(f"{redis_broker.namespace}:{queue}", 0, -1)
    expected = {f"task-{number}" for number in range(3)} - {held.message_id}
    assert {each.decode() for each in waiting} == {delivery_id(task, 0) for task in expected}


def test_a_worker_that_was_taken_for_dead_hands_nothing_back(
    redis_broker: RedisBroker, broker_settings: Settings
) -> None:
    """Its message was run by another: the broker must not say for ever that it has it."""
    settings = broker_settings.model_copy(update={"heartbeat_s": 0.3})
    queue, other = settings.queue_prefix + IMAGES_QUEUE, own_broker(settings)
    assert isinstance(other, RedisBroker)
    send(redis_broker, message(settings))
    paused = redis_broker.consume(queue, prefetch=1, timeout=50)
    held = wait_for(lambda: next(paused), what="the message")
    wait_for(lambda: other.do_fetch(queue, 1), what="the message, at another worker")
    other.do_ack(queue, delivery_id("task", 0))
    redis_broker.requeue(held)
    paused.ack(held)
    assert redis_broker.missing(queue, [delivery_id("task", 0)]) == {delivery_id("task", 0)}


def test_a_message_that_was_handed_back_and_taken_again_is_held(
    redis_broker: RedisBroker, broker_settings: Settings
) -> None:
    """The thread that handed it back lets go of it late; a consumer that reconnects then must not put it back."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    send(redis_broker, message(broker_settings))
    consumer = redis_broker.consume(queue, prefetch=2, timeout=50)
    first = wait_for(lambda: next(consumer), what="the message")
    redis_broker.requeue_now(queue, first)
    wait_for(lambda: next(consumer), what="the message again")
    redis_broker.remove_in_work(queue, first)
    redis_broker.consume(queue, prefetch=2, timeout=50)
    assert redis_broker.client.llen(f"{redis_broker.namespace}:{queue}") == 0


def test_what_is_late_is_thrown_away_with_the_queue(redis_broker: RedisBroker, broker_settings: Settings) -> None:
    """Also what no worker has had in its memory yet."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    names = [f"late-{number}" for number in range(3)]
    for name in names:
        send(redis_broker, message(broker_settings, name), delay_s=60)
    other = own_broker(broker_settings)
    wait_for(lambda: next(other.consume(dq_name(queue), prefetch=1, timeout=50)), what="a late message")
    assert redis_broker.discard(queue) == 2
    assert len(redis_broker.missing(queue, [delivery_id(name, 0) for name in names])) == 2

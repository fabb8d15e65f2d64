"""The contract of every broker, on Valkey, Redis and RabbitMQ: real servers, real Dramatiq workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dramatiq
import pika
import pytest
from dramatiq import Worker
from dramatiq.common import dq_name, xq_name

from dream.db import DreamTask
from dream.errors import BrokerUnavailable, ImageRejected, WorkerStopping
from dream.messages.registry import IMAGES_QUEUE, QUEUES
from dream.producer import Producer
from dream.runs.sending import own_broker
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from tests.conftest import wait_for
from tests.contract.conftest import Worked, message

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker


def test_a_message_reaches_its_actor_once(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    send(broker, message(broker_settings))
    wait_for(lambda: worked.calls, what="the call")
    worker.join()
    assert [args for _, args in worked.calls] == [(1, [], [])]


def test_a_delayed_message_is_not_early(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    sent_at = time.monotonic()
    send(broker, message(broker_settings), delay_s=0.5)
    wait_for(lambda: worked.calls, what="the call")
    assert 0.5 <= worked.calls[0][0] - sent_at < 2.5


def test_what_is_due_soon_does_not_wait_behind_what_is_late(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has some delayed messages in its memory, by default 1,000 a thread; here 2, and more are there."""
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 2)
    for number in range(5):
        send(broker, message(broker_settings, f"late-{number}"), delay_s=60)
    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        delayed = worker.consumers[dq_name(message(broker_settings).queue_name)]
        wait_for(lambda: delayed.delay_queue.qsize() >= 2, what="late messages in the worker")
        send(broker, message(broker_settings, "soon"), delay_s=0.2)
        wait_for(lambda: worked.calls, what="the call")
    finally:
        worker.stop(timeout=5000)


def test_retries_follow_the_policy_exactly(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    """0.4 s, then ×1.5; two retries are three runs; never early and, on an idle worker, not 2 s late."""

    def fail(_call: int) -> None:
        raise RuntimeError("again")

    worked.behaviour = fail
    send(broker, message(broker_settings))
    wait_for(lambda: len(worked.calls) == 3, what="the third run")
    worker.join()
    times = [at for at, _ in worked.calls]
    for gap_s, planned_s in zip([times[1] - times[0], times[2] - times[1]], [0.4, 0.6], strict=True):
        assert planned_s <= gap_s < planned_s + 2
    assert len(worked.calls) == 3


def test_a_permanent_error_is_not_tried_again(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    def fail(_call: int) -> None:
        raise ImageRejected("no picture")

    worked.behaviour = fail
    send(broker, message(broker_settings))
    wait_for(lambda: worked.calls, what="the run")
    send(broker, message(broker_settings, "next"))
    wait_for(lambda: len(worked.calls) == 2, what="the next task's run")
    worker.join()
    assert len(worked.calls) == 2


def test_what_is_handed_back_runs_again(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    class HandsBack(dramatiq.Middleware):
        def after_process_message(self, broker: Any, message: Any, *, exception: Any = None, **_: Any) -> None:
            if isinstance(exception, WorkerStopping):
                broker.requeue(message)

    def stop_once(call: int) -> None:
        if call == 1:
            raise WorkerStopping

    broker.add_middleware(HandsBack())
    worked.behaviour = stop_once
    send(broker, message(broker_settings))
    wait_for(lambda: len(worked.calls) == 2, what="the second run")


def test_bytes_that_are_no_message_wedge_nobody(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    """They are moved to the dead letters, and what comes after them runs."""
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    dead_letters = xq_name(queue)
    if isinstance(broker, RedisBroker):
        for index in range(10):
            broker.do_enqueue(queue, f"bad-{index}", b"\xff not json")
    else:
        broker.declare_queue(queue, ensure=True)
        for _ in range(10):
            broker.channel.basic_publish("", queue, b"\xff not json")
    send(broker, message(broker_settings))
    wait_for(lambda: worked.calls, what="the good message's run")

    def buried() -> int:
        if isinstance(broker, RedisBroker):
            return int(broker.client.zcard(f"{broker.namespace}:{dead_letters}"))
        return int(broker.channel.queue_declare(dead_letters, passive=True).method.message_count)

    wait_for(lambda: buried() == 10, what="ten dead letters")


def test_an_unanswering_broker_is_one_error(environment: dict[str, str], settings_of: Callable[..., Settings]) -> None:
    for url in ("redis://127.0.0.1:9/0", "amqp://guest:guest@127.0.0.1:9/"):
        settings = settings_of(environment, broker_url=url)
        broker = own_broker(settings)
        with pytest.raises(BrokerUnavailable):
            send(broker, message(settings))


def test_a_queue_of_another_kind_does_not_refuse_what_is_recorded(settings: Settings, local_rabbitmq_url: str) -> None:
    """The rows are committed before the message is sent: a call that raised then would have accepted after all."""
    prefix = f"t{uuid4().hex[:8]}_"
    connection = pika.BlockingConnection(pika.URLParameters(local_rabbitmq_url))
    connection.channel().queue_declare(prefix + IMAGES_QUEUE, durable=True)  # as Celery does
    try:
        producer = Producer(settings.model_copy(update={"broker_url": local_rabbitmq_url, "queue_prefix": prefix}))
        task_id = producer.upload_images(7, [{"name": "a.jpg", "data": b"not decoded here"}], [0])
        with producer.database.read() as session:
            assert session.get(DreamTask, task_id) is not None
        producer.broker.close()
        producer.database.dispose()
    finally:
        for queue in QUEUES:
            for suffix in ("", ".DQ", ".XQ"):
                connection.channel().queue_delete(prefix + queue + suffix)
        connection.close()

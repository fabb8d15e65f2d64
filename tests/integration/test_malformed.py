"""Malformed messages of strangers in Redis become dead letters or fail, and workers run the messages beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import dramatiq
import pytest
from dramatiq import MessageProxy, Worker
from dramatiq.middleware import SkipMessage

from dream.db import Database, tasks
from dream.messages.registry import DELETE_IMAGES, PROCESS_IMAGES
from dream.messages.states import Failure
from dream.producer import Producer
from dream.runs import outcomes
from dream.runs.claims import Claims
from dream.runs.connections import Connections
from dream.runs.ledger import RowLedger
from dream.settings import Settings
from dream.work.broker.rabbitmq import RabbitmqBroker
from dream.work.broker.redis import RedisBroker
from dream.work.middleware.answering import Answering
from tests.conftest import wait_for
from tests.queues import delete_queues
from tests.workers import running_broker

_THREADS = 2
#: What replaces a field of a message that is whole.
MALFORMED: list[dict[str, Any]] = [
    {"options": None},
    {"options": {}},
    {"options": {"redis_message_id": 5}},
    {"message_id": {}},
    {"message_id": None},
    {"actor_name": []},
    *[{"queue_name": "another"}] * (_THREADS + 1),
    {"queue_name": None},
    {"kwargs_of_a_later_release": {}},
]


@pytest.fixture
def broker(settings: Settings) -> Iterator[RedisBroker]:
    broker = running_broker(settings)
    assert isinstance(broker, RedisBroker)
    yield broker
    broker.flush_all()
    broker.close()


def test_a_malformed_message_is_a_dead_letter_and_stops_no_thread(broker: RedisBroker, settings: Settings) -> None:
    """One whose queue is another one killed the thread that took it; one without options came again for ever."""
    done: list[int] = []
    queue = f"{settings.queue_prefix}default"
    actor = dramatiq.actor(done.append, broker=broker, actor_name="note", queue_name=queue)
    for number, wrong in enumerate(MALFORMED):
        actor.send(number)
        message = actor.message(-1).copy(options={"redis_message_id": f"malformed-{number}"}).asdict()
        name = f"{broker.namespace}:{queue}"
        broker.client.hset(f"{name}.msgs", f"malformed-{number}", json.dumps(message | wrong))
        broker.client.rpush(name, f"malformed-{number}")
    worker = Worker(broker, worker_threads=_THREADS, worker_timeout=100)
    worker.start()
    try:
        wait_for(lambda: len(done) == len(MALFORMED), what="every message that is whole")
        dead = f"{broker.namespace}:{queue}.XQ"
        wait_for(lambda: broker.client.zcard(dead) == len(MALFORMED), what="the dead letters")
        assert sorted(done) == list(range(len(MALFORMED)))
        assert all(thread.is_alive() for thread in worker.workers)
    finally:
        worker.stop()


def test_a_malformed_message_on_rabbitmq_is_a_dead_letter_too(
    environment: dict[str, str], settings_of: Callable[..., Settings], local_rabbitmq_url: str
) -> None:
    """Stock would die of such a message, or fetch it again for ever; its neighbours are worked on."""
    prefix = f"{environment['DREAM_REDIS_PREFIX']}-"
    settings = settings_of(environment, broker_url=local_rabbitmq_url, queue_prefix=prefix)
    queue = f"{prefix}default"
    broker = running_broker(settings)
    assert isinstance(broker, RabbitmqBroker)
    done: list[int] = []
    actor = dramatiq.actor(done.append, broker=broker, actor_name="note", queue_name=queue)
    malformed = [wrong for wrong in MALFORMED if "options" not in wrong or wrong["options"] is None]
    for number, wrong in enumerate(malformed):
        actor.send(number)
        body = json.dumps(actor.message(-1).asdict() | wrong)
        broker.channel.basic_publish("", queue, body)
    worker = Worker(broker, worker_threads=_THREADS, worker_timeout=100)
    worker.start()
    try:
        wait_for(lambda: len(done) == len(malformed), what="every message that is whole")
        wait_for(lambda: broker.get_queue_message_counts(queue)[2] == len(malformed), what="the dead letters")
        assert sorted(done) == list(range(len(malformed)))
        assert all(thread.is_alive() for thread in worker.workers)
    finally:
        worker.stop()
        broker.close()
        delete_queues(settings)


def test_an_id_that_no_row_can_hold_is_a_dead_letter(
    settings: Settings, broker: RedisBroker, postgres_url: str
) -> None:
    """It came back every five seconds for ever, as if the database were away."""
    at_postgres = settings.model_copy(update={"database_url": postgres_url})
    database = Database(at_postgres)
    ledger = RowLedger(at_postgres, Connections(at_postgres, database=database))
    broker.add_middleware(Claims(at_postgres, database, ledger, Answering(at_postgres, "one")))
    actor = dramatiq.actor(print, broker=broker, actor_name="stranger's", durable=True)
    message = MessageProxy(actor.message().copy(message_id="x" * 300))
    with pytest.raises(SkipMessage):
        copy_context().run(broker.emit_before, "process_message", message)  # this thread has no message after that
    assert message.failed
    database.dispose()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (DELETE_IMAGES, [10**30, [{"id": 1, "url": "a"}], "ann"]),
        (DELETE_IMAGES, [7, [{"id": 1, "url": {}}], "ann"]),
        (PROCESS_IMAGES, [float("inf"), [], []]),
    ],
)
def test_the_end_of_a_malformed_task_can_be_told(
    producer: Producer, settings: Settings, name: str, args: list[Any]
) -> None:
    """It is the sweep's first for ever: an error there kept all later ends from being told."""
    with producer.database.begin() as session:
        tasks.add(session, "malformed", name, args)
        session.flush()
        claim = tasks.claim(session, "malformed", 30)
        assert claim is not None
        outcomes.conclude_failure(session, claim, Failure("wrong arguments"))
    outcomes.announce(producer.connections, "malformed")
    with producer.database.read() as session:
        assert not tasks.unannounced(session, after_s=-1, limit=1)

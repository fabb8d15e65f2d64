"""The sweep on both kinds of brokers: what is lost is sent, once, and what is there is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import insert, update

from dream.db import Database, DreamTask, migrate, tasks
from dream.db.clock import now
from dream.messages.registry import IMAGES_QUEUE, PROCESS_IMAGES
from dream.runs.connections import Connections
from dream.runs.sending import message_of, own_broker
from dream.scheduler.sweep import Sweep
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DELIVERY_ID, delivery_id
from tests.conftest import wait_for

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker
from dream.messages.states import Failure

pytestmark = pytest.mark.parametrize("broker_settings", ["valkey", "rabbitmq"], indirect=True)

BACKLOG = 10_000
#: Where a broker cannot be asked what it holds, so many of a backlog may be doubted in one sweep.
DOUBTED = 100


@pytest.fixture
def database(broker_settings: Settings) -> Iterator[Database]:
    migrate.upgrade(broker_settings.database_url)
    database = Database(broker_settings)
    yield database
    database.dispose()


def sweep_of(settings: Settings, database: Database, broker: AnyBroker) -> Sweep:
    return Sweep(settings, Connections(settings, database=database, broker=broker))


def add_overdue(database: Database, count: int) -> list[str]:
    """Tasks that were due an hour ago and that nobody works on."""
    ids = [uuid4().hex for _ in range(count)]
    with database.begin() as session:
        session.execute(insert(DreamTask), [{"id": each, "name": PROCESS_IMAGES, "args": [1, [], []]} for each in ids])
        session.execute(update(DreamTask).values(due_at=now(-3600)))
    return ids


def enqueue(broker: AnyBroker, settings: Settings, ids: list[str]) -> None:
    """Put their messages on the queue, in one go."""
    messages = [message_of(settings, each, PROCESS_IMAGES, [1, [], []]) for each in ids]
    queue = settings.queue_prefix + IMAGES_QUEUE
    if isinstance(broker, RedisBroker):
        key = f"{broker.namespace}:{queue}"
        bodies = {delivery_id(message.message_id, 0): message.encode() for message in messages}
        broker.client.hset(f"{key}.msgs", mapping=bodies)  # type: ignore[arg-type]
        broker.client.rpush(key, *bodies)
    else:
        broker.declare_queue(queue, ensure=True)
        unconfirmed = broker.connection.channel()
        for message in messages:
            unconfirmed.basic_publish("", queue, message.encode())
        unconfirmed.close()


def waiting(broker: AnyBroker, settings: Settings) -> int:
    queue = settings.queue_prefix + IMAGES_QUEUE
    if isinstance(broker, RedisBroker):
        return int(broker.client.llen(f"{broker.namespace}:{queue}"))
    return int(broker.get_queue_message_counts(queue)[0])


def test_announcements_that_fail_show_life_and_wait_for_the_next_sweep(
    broker: AnyBroker, broker_settings: Settings, database: Database
) -> None:
    """Each takes seconds with a Redis that does not answer, and a watchdog looks at the sweep."""
    with database.begin() as session:
        session.execute(
            insert(DreamTask),
            [{"id": f"t{each}", "name": "a.b", "args": [], "state": "succeeded"} for each in range(8)],
        )
        session.execute(update(DreamTask).values(finished_at=now(-3600)))
    away = broker_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    shown: list[str] = []
    sweep = Sweep(away, Connections(away, database=database, broker=broker), shown.append)
    assert sweep.announce() == len(shown) == 3


@pytest.mark.slow
def test_a_backlog_of_10_000_is_not_flooded(broker: AnyBroker, broker_settings: Settings, database: Database) -> None:
    """All overdue, all still queued: sweep after sweep adds none, or on RabbitMQ a few that are doubted."""
    enqueue(broker, broker_settings, add_overdue(database, BACKLOG))
    sweep = sweep_of(broker_settings, database, broker)
    sent = sweep.resend() + sweep.resend()
    assert sent <= (0 if isinstance(broker, RedisBroker) else 2 * DOUBTED)
    assert waiting(broker, broker_settings) == BACKLOG + sent


def test_two_sweeps_at_once_send_what_is_lost_once(
    broker: AnyBroker, broker_settings: Settings, database: Database
) -> None:
    """Two schedulers, each with its own connections, at the same moment."""
    add_overdue(database, 50)
    others_broker, others_database = own_broker(broker_settings), Database(broker_settings)
    sweeps = [
        sweep_of(broker_settings, database, broker),
        sweep_of(broker_settings, others_database, others_broker),
    ]
    together = threading.Barrier(2)
    sent: list[int] = []

    def run(sweep: Sweep) -> None:
        together.wait()
        sent.append(sweep.resend())

    threads = [threading.Thread(target=run, args=(sweep,)) for sweep in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    others_broker.close()
    others_database.dispose()
    assert sum(sent) == 50
    assert waiting(broker, broker_settings) == 50


def test_what_waits_for_its_retry_or_is_in_work_is_not_sent(
    broker: AnyBroker, broker_settings: Settings, database: Database
) -> None:
    """A retry that is not due, one that is due and delayed in the broker, and a task with a live lease."""
    later, in_work, lost = add_overdue(database, 3)
    with database.begin() as session:
        claim = tasks.claim(session, later, 30)
        assert claim is not None
        tasks.retry_later(session, claim, Failure("store away"), 600)
        assert tasks.claim(session, in_work, 30)
    send(broker, message_of(broker_settings, later, PROCESS_IMAGES, [1, [], []], attempt=1), delay_s=600)
    assert sweep_of(broker_settings, database, broker).resend() == 1
    assert waiting(broker, broker_settings) == 1
    with database.read() as session:
        assert [task.id for task in tasks.overdue(session, 0)] == [lost]


def test_a_retry_that_was_never_enqueued_is_sent_with_its_attempts(
    broker: AnyBroker, broker_settings: Settings, database: Database
) -> None:
    """The row was written, the broker was away: the row is enough."""
    [task_id] = add_overdue(database, 1)
    with database.begin() as session:
        claim = tasks.claim(session, task_id, 30)
        assert claim is not None
        tasks.retry_later(session, claim, Failure("store away"), -3600)
    assert sweep_of(broker_settings, database, broker).resend() == 1
    queue = broker_settings.queue_prefix + IMAGES_QUEUE
    consumer = broker.consume(queue, prefetch=1, timeout=1000)
    message = wait_for(lambda: next(consumer), what="the message")
    assert message.options[DELIVERY_ID] == delivery_id(task_id, 1)
    consumer.ack(message)
    consumer.close()

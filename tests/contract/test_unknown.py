"""Tasks that a worker does not know, with real workers on every broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import dramatiq
import pytest
from dramatiq import Message, Worker

from dream.settings import Settings
from dream.work.broker import send
from dream.work.messages import DEFAULT_QUEUE, DELIVERY_ID, SERIES
from dream.work.questions import Question, ask
from dream.work.results import ResultStore
from tests.conftest import wait_for
from tests.workers import answering_broker

if TYPE_CHECKING:
    from dream.work.broker import AnyBroker

TASK = "shop.add"


@contextmanager
def working(settings: Settings, name: str, ran: list[int] | None = None) -> Iterator[Worker]:
    """A worker that notes the runs of the task, or does not know it."""
    broker = answering_broker(settings, name)
    if ran is not None:
        queue = settings.queue_prefix + DEFAULT_QUEUE
        dramatiq.actor(actor_name=TASK, queue_name=queue, broker=broker)(lambda number, **_: ran.append(number))
    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    yield worker
    worker.stop(timeout=5000)
    broker.close()


def ask_for(broker: AnyBroker, settings: Settings, number: int, **options: object) -> str:
    task_id = uuid4().hex
    message: Message[None] = Message(
        queue_name=settings.queue_prefix + DEFAULT_QUEUE,
        actor_name=TASK,
        args=(number,),
        kwargs={"broker": "one of the caller's names"},
        options={DELIVERY_ID: f"{task_id}:0", "celery": {}, **options},
        message_id=task_id,
    )
    send(broker, message)
    return task_id


@pytest.mark.slow
def test_a_worker_leaves_tasks_that_it_does_not_know_to_one_that_does(
    broker: AnyBroker, broker_settings: Settings
) -> None:
    """Also runs of a schedule, which the broker takes once; and none of them twice."""
    settings, ran = broker_settings.model_copy(update={"unknown_task_s": 60.0}), []
    with working(settings, "stranger"), working(settings, "owner", ran):
        for number in range(20):
            ask_for(broker, settings, number, **({SERIES: f"entry-{number}"} if number % 2 else {}))
        wait_for(lambda: len(ran) >= 20, 60, what="every run")
    assert sorted(ran) == list(range(20))


def test_a_task_waits_for_a_worker_that_comes_later(broker: AnyBroker, broker_settings: Settings) -> None:
    settings, ran = broker_settings.model_copy(update={"unknown_task_s": 60.0}), []
    with working(settings, "stranger") as stranger:
        ask_for(broker, settings, 1)
        wait_for(lambda: stranger.consumers[f"{settings.queue_prefix}{DEFAULT_QUEUE}.DQ"], what="the delay queue")
        with working(settings, "owner", ran):
            wait_for(lambda: ran == [1], 30, what="the run")


def test_a_task_that_nobody_knows_ends_as_celery_ends_it(broker: AnyBroker, broker_settings: Settings) -> None:
    settings = broker_settings.model_copy(update={"unknown_task_s": 0.0})
    results = ResultStore(settings)
    with working(settings, "stranger"):
        task_id = ask_for(broker, settings, 1)
        kept = wait_for(lambda: results.get(task_id), what="the result")
    assert (kept["status"], kept["result"]) == (
        "FAILURE",
        {"exc_type": "NotRegistered", "exc_message": [TASK], "exc_module": "celery.exceptions"},
    )
    results.close()


def test_a_task_of_a_worker_that_is_busy_is_not_given_up(broker: AnyBroker, broker_settings: Settings) -> None:
    """The time is over, but a worker that runs says that it knows the task."""
    settings, ran = broker_settings.model_copy(update={"unknown_task_s": 0.0}), []
    free = threading.Event()
    with working(settings, "stranger"), working(settings, "owner", ran) as owner:

        @dramatiq.actor(actor_name="block", queue_name=settings.queue_prefix + DEFAULT_QUEUE, broker=owner.broker)
        def block() -> None:
            free.wait(30)

        ping = Question(command="ping")
        wait_for(lambda: len(ask(settings, ping, timeout_s=0.5).by_worker) == 2, what="both workers")
        block.send()
        wait_for(lambda: owner.work_queue.unfinished_tasks, what="a busy worker")
        for number in range(6):
            ask_for(broker, settings, number)
        free.set()
        wait_for(lambda: len(ran) == 6, 30, what="every run")

"""The state of the queues: messages on every broker, tasks in every database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from dream.db import Database, tasks
from dream.messages.registry import CLEANUP_TOKENS, IMAGES_QUEUE, PROCESS_IMAGES
from dream.messages.states import Failure, TaskState
from dream.runs.queues import depths, due
from dream.settings import Settings
from dream.work.broker import send
from tests.conftest import wait_for
from tests.contract.conftest import message

if TYPE_CHECKING:
    from dramatiq import Worker

    from dream.work.broker import AnyBroker
    from tests.contract.conftest import Worked


def test_messages_count_as_waiting_until_a_worker_has_them(
    broker: AnyBroker, broker_settings: Settings, worked: Worked
) -> None:
    send(broker, message(broker_settings, "now-1"))
    send(broker, message(broker_settings, "now-2"))
    send(broker, message(broker_settings, "late"), delay_s=60)
    wait_for(lambda: depths(broker_settings, broker)[IMAGES_QUEUE] == (2, 1), what="RabbitMQ's count")
    assert depths(broker_settings, broker)["default"] == (0, 0)


def test_messages_in_work_do_not_wait(
    broker: AnyBroker, broker_settings: Settings, worked: Worked, worker: Worker
) -> None:
    send(broker, message(broker_settings))
    wait_for(lambda: worked.calls, what="the call")
    worker.join()
    wait_for(lambda: depths(broker_settings, broker)[IMAGES_QUEUE] == (0, 0), what="no message")


def test_the_age_of_the_oldest_task_counts_from_its_due_time(database: Database) -> None:
    with database.begin() as session:
        for number, age_s in enumerate((5, 100, 40)):
            tasks.add(session, f"image-{number}", PROCESS_IMAGES, [], due_in_s=-age_s)
        tasks.add(session, "later", PROCESS_IMAGES, [], due_in_s=60)
        tasks.add(session, "tokens", CLEANUP_TOKENS, [], due_in_s=-7, queue="slow")
    found = due(database)
    assert found.waiting == {"default": 0, IMAGES_QUEUE: 3, "slow": 1}
    assert 100 <= found.oldest_age_s[IMAGES_QUEUE] < 130
    assert 7 <= found.oldest_age_s["slow"] < 37
    assert found.oldest_age_s["default"] == 0


def test_a_task_that_the_sweep_sent_again_still_waits(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "lost", PROCESS_IMAGES, [], due_in_s=-100)
    with database.begin() as session:
        (lost,) = tasks.overdue(session, 30)
        assert tasks.may_resend(session, lost, 0)
    assert due(database).waiting[IMAGES_QUEUE] == 1
    assert due(database).oldest_age_s[IMAGES_QUEUE] >= 100


def test_a_task_in_a_run_does_not_wait_until_its_worker_is_dead(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "run", PROCESS_IMAGES, [], due_in_s=-100)
    with database.begin() as session:
        assert tasks.claim(session, "run", lease_s=60)
    assert due(database).waiting[IMAGES_QUEUE] == 0
    assert due(database).counts.running == 1
    with database.begin() as session:
        session.execute(text("UPDATE dream_tasks SET lease_expires_at = due_at"))
    assert due(database).waiting[IMAGES_QUEUE] == 1
    assert due(database).counts.running == 0


def test_failed_tasks_are_counted(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "bad", PROCESS_IMAGES, [])
        session.flush()
        claim = tasks.claim(session, "bad", lease_s=60)
        assert claim
        tasks.finish(session, claim, TaskState.FAILED, failure=Failure("no"))
    assert due(database).counts == (0, 1, 0)

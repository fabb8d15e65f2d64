"""Messages without a row: a real worker waits for one that is late, and drops the message of one that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Message
from sqlalchemy import update

from dream.db import Database, DreamTask, tasks
from dream.db.clock import now
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import TaskState
from dream.runs.sending import message_of, own_broker
from dream.scheduler.removal import Retention
from dream.settings import Settings
from dream.work.broker import send
from dream.work.broker.redis import RedisBroker
from dream.work.messages import DEFAULT_QUEUE, DELIVERY_ID
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.processes import Parts
from tests.queues import delete_queues

pytestmark = pytest.mark.slow

DAY_S = 86400


class Scene:
    """A worker's process, and what this process sends it."""

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings = settings
        self.parts = parts
        self.database = Database(settings)
        self.broker = own_broker(settings)

    def message(self, task_id: str, *, is_ours: bool, age_s: float = 0) -> Message[Any]:
        message = message_of(self.settings, task_id, CLEANUP_TOKENS, [])
        if not is_ours:
            del message.options[DELIVERY_ID]
        return message._replace(message_timestamp=round((time.time() - age_s) * 1000))

    def state_of(self, task_id: str) -> TaskState | None:
        with self.database.read() as session:
            task = session.get(DreamTask, task_id)
        return task.state if task else None

    def await_end(self, task_id: str) -> None:
        wait_for(lambda: self.state_of(task_id) is TaskState.SUCCEEDED, what=f"the end of {task_id}")

    def waiting(self) -> int:
        """Messages that are somewhere: waiting, delayed, in work or dead."""
        queue = self.settings.queue_prefix + DEFAULT_QUEUE
        if isinstance(self.broker, RedisBroker):
            names = [f"{self.broker.namespace}:{queue}{kind}.msgs" for kind in ("", ".DQ", ".XQ")]
            return sum(int(self.broker.client.hlen(name)) for name in names)
        self.broker.declare_queue(queue, ensure=True)
        return sum(self.broker.get_queue_message_counts(queue))

    def make_old(self, task_id: str) -> None:
        """The task ended a month ago, and is removed."""
        ended = now(-40 * DAY_S)
        with self.database.begin() as session:
            session.execute(
                update(DreamTask).where(DreamTask.id == task_id).values(finished_at=ended, announced_at=ended)
            )
        assert Retention(self.settings, self.database).prune()["tasks"] == 1
        assert self.state_of(task_id) is None


@pytest.fixture(params=["valkey", "rabbitmq"])
def scene(request: pytest.FixtureRequest, servers: dict[str, str], tmp_path: Path) -> Iterator[Scene]:
    environment = environment_in(tmp_path, servers)
    if request.param == "rabbitmq":
        environment["DREAM_REDIS_URL"] = environment["DREAM_BROKER_URL"]
        environment["DREAM_BROKER_URL"] = request.getfixturevalue("local_rabbitmq_url")
        environment["DREAM_QUEUE_PREFIX"] = f"{environment['DREAM_REDIS_PREFIX']}-"
    settings = prepare(settings_from(environment))
    scene = Scene(settings, Parts(environment, tmp_path))
    yield scene
    scene.parts.end()
    scene.broker.close()
    scene.database.dispose()
    if request.param == "rabbitmq":
        delete_queues(settings)


def test_a_message_that_is_faster_than_its_row_runs_and_no_scheduler_is_needed(scene: Scene) -> None:
    worker = scene.parts.start("worker")
    send(scene.broker, scene.message("early", is_ours=True))
    wait_for(lambda: "not_visible" in scene.parts.log_of(worker), what="the first look")
    with scene.database.begin() as session:
        tasks.add(session, "early", CLEANUP_TOKENS, [])
    scene.await_end("early")


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "a stranger's"])
def test_a_late_message_of_a_task_that_is_gone_is_dropped_and_never_run(scene: Scene, is_ours: bool) -> None:
    """Delivered again, put back by hand, or left on the queue for all that time; a new one runs as ever."""
    worker = scene.parts.start("worker")
    late = scene.message("late", is_ours=is_ours, age_s=41 * DAY_S)
    if is_ours:
        with scene.database.begin() as session:
            tasks.add(session, "late", CLEANUP_TOKENS, [])
    send(scene.broker, late)
    scene.await_end("late")
    scene.make_old("late")
    for another in ("another", "one more"):
        send(scene.broker, late)
        send(scene.broker, scene.message(another, is_ours=False))
        scene.await_end(another)
    wait_for(lambda: scene.parts.log_of(worker).count('"reason": "unknown"') == 2, what="that both were dropped")
    wait_for(lambda: scene.waiting() == 0, what=lambda: f"empty queues; {scene.waiting()} are left")
    assert scene.state_of("late") is None
    assert scene.parts.log_of(worker).count("tokens_cleaned_up") == 3


def test_a_message_of_a_rolled_back_transaction_is_dropped_after_a_while(scene: Scene) -> None:
    scene.parts.start("worker", DREAM_RESEND_AFTER_S="1")
    send(scene.broker, scene.message("rolled back", is_ours=True))
    wait_for(lambda: scene.waiting() == 0, what=lambda: f"empty queues; {scene.waiting()} are left")
    assert scene.state_of("rolled back") is None


@pytest.mark.parametrize("stamp", [0, -5, 2**70, "soon", None])
def test_a_stranger_whose_clock_says_anything_is_served_where_nothing_has_gone(scene: Scene, stamp: Any) -> None:
    scene.parts.start("worker")
    send(scene.broker, scene.message("stranger", is_ours=False)._replace(message_timestamp=stamp))
    scene.await_end("stranger")

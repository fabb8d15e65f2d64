"""Several intentions about one picture at a time: the last rightful one wins, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream.messages.states import ImageState, TaskState
from tests import promise
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts


@pytest.mark.slow
@pytest.mark.parametrize("point", ["put:after", "complete:after"])
def test_a_picture_deleted_while_it_is_in_work_leaves_nothing(
    parts: Parts, system: System, environment: dict[str, str], tmp_path: Path, jpeg: bytes, point: str
) -> None:
    """Its worker stands between object and row, or after both, while its owner and a stranger delete it, twice."""
    struck = tmp_path / "struck"
    parts.start("worker", DREAM_FAULT=f"{point}=hold*1@{struck}")
    upload = system.producer.upload_images(7, [{"name": "a.jpg", "data": jpeg}] * 2, [3, 3])
    # The thread alone: a process that is stopped may hold SQLite's write lock, and then nobody can delete anything.
    wait_for(lambda: struck.exists() and struck.read_text(), what="the worker at its step")
    first, second = system.images(upload)
    strangers = system.producer.delete_images(8, [{"id": second.id}], "eve")
    owners = [system.producer.delete_images(7, [{"id": first.id}], "ann") for _ in range(2)]
    with struck.open("a") as file:
        file.write("go\n")
    assert system.await_end(upload).state is TaskState.SUCCEEDED
    assert [system.await_end(each).result for each in (strangers, *owners)] == [[False], [True], [True]]
    first, second = system.images(upload)
    assert (first.state, second.state) == (ImageState.DELETED, ImageState.COMPLETED)
    promise.sweep_the_night(environment)
    assert system.objects() == [second.storage_key]
    assert promise.check(environment, [upload, strangers, *owners]).broken == []


@pytest.mark.slow
def test_one_message_twice_and_two_workers_have_one_effect(
    parts: Parts, system: System, environment: dict[str, str], jpeg: bytes
) -> None:
    """Twenty uploads, each of whose messages is on the queue twice: every picture is stored and told of once."""
    from dramatiq.brokers.redis import RedisBroker as StockRedisBroker

    from dream.runs.sending import message_of

    accepted = [system.producer.upload_images(1 + n, [{"name": "a.jpg", "data": jpeg}], [0]) for n in range(20)]
    for task_id in accepted:
        task = system.task(task_id)
        copy = message_of(system.settings, task.id, task.name, task.args)
        StockRedisBroker.enqueue(system.producer.broker, copy)  # type: ignore[arg-type]
    workers = [parts.start("worker", ready=False) for _ in range(2)]
    tasks = [system.await_end(task_id) for task_id in accepted]
    assert {(task.state, task.attempts, task.deaths) for task in tasks} == {(TaskState.SUCCEEDED, 0, 0)}
    stored = "".join(parts.log_of(worker) for worker in workers).count('"image_completed"')
    assert stored == len(accepted)
    assert promise.check(environment, accepted).broken == []

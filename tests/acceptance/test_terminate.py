"""`revoke(terminate=True)` of an upload that runs: it stops in the pool, and nothing is left half done."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dream.celery import celery_app
from dream.celery.tasks import delete_dream_images
from dream.compat.exceptions import TaskRevokedError
from dream.messages.states import ImageState, TaskState
from tests import promise
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.pictures import noise
from tests.processes import Parts
from tests.this_process import configured

pytestmark = pytest.mark.slow

_LARGE = (4000, 3000)


@pytest.fixture(autouse=True)
def _as_caller(environment: dict[str, str]) -> Iterator[None]:
    with configured(environment):
        yield


def states(system: System, task_id: str) -> list[ImageState]:
    return [image.state for image in system.images(task_id)]


def test_an_upload_that_runs_is_stopped_and_told_as_revoked(
    parts: Parts, system: System, environment: dict[str, str]
) -> None:
    """Stored pictures stay; work in the pool is stopped, so the next upload has its place at once."""
    # AVIF takes long enough to be stopped on any machine.
    parts.start("worker", DREAM_WORKER_THREADS="1", DREAM_OUTPUT_FORMAT="avif")
    slow = noise(2400, 1800)
    files = [{"name": f"{number}.jpg", "data": slow} for number in range(12)]
    task_id = system.producer.upload_images(7, files, [0] * len(files))
    wait_for(lambda: ImageState.COMPLETED in states(system, task_id), 60, "the first picture")
    result = celery_app.AsyncResult(task_id)
    asked_at = time.monotonic()
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)
    assert time.monotonic() - asked_at < 5
    task = system.await_end(task_id)
    assert (task.state, result.status) == (TaskState.REVOKED, "REVOKED")
    ended = states(system, task_id)
    assert set(ended) == {ImageState.COMPLETED, ImageState.FAILED}
    last = system.events(7)[-1]
    assert (last["status"], len(last["images"])) == ("failed", ended.count(ImageState.COMPLETED))
    assert [event["status"] for event in system.events(7)].count("failed") == 1
    after = system.producer.upload_images(8, [{"name": "a.jpg", "data": noise()}], [0])
    assert system.await_end(after, 10).state is TaskState.SUCCEEDED
    assert promise.check(environment, [task_id, after]).broken == []


def test_a_deletion_that_has_hidden_its_pictures_cannot_be_revoked(parts: Parts, system: System) -> None:
    """Nobody can read them any more, so what is left of them must go; a deletion that may expire hides none yet."""
    upload = system.producer.upload_images(7, [{"name": f"{each}.jpg", "data": noise()} for each in "ab"], [0, 0])
    worker = parts.start("worker")
    system.await_end(upload)
    parts.stop(worker)
    first, second = ({"id": image.id, "url": image.url} for image in system.images(upload))
    hidden = delete_dream_images.delay(7, [first], "anna")
    open_yet = delete_dream_images.apply_async((7, [second], "anna"), expires=60)
    for result in (hidden, open_yet):
        result.revoke(terminate=True)
    assert [each.state for each in (hidden, open_yet)] == ["PENDING", "REVOKED"]
    parts.start("worker")
    assert system.await_end(hidden.id).state is TaskState.SUCCEEDED
    assert system.await_end(open_yet.id).state is TaskState.REVOKED
    assert states(system, upload) == [ImageState.DELETED, ImageState.COMPLETED]
    assert len(system.objects()) == 1


def test_an_upload_that_is_revoked_without_terminate_runs_to_its_end(parts: Parts, system: System) -> None:
    """As in Celery: it has begun."""
    parts.start("worker", DREAM_WORKER_THREADS="1")
    large = noise(*_LARGE)
    task_id = system.producer.upload_images(7, [{"name": f"{each}.jpg", "data": large} for each in range(3)], [0] * 3)
    wait_for(lambda: ImageState.COMPLETED in states(system, task_id), 60, "the first picture")
    celery_app.AsyncResult(task_id).revoke()
    assert system.await_end(task_id).state is TaskState.SUCCEEDED

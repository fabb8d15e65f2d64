"""Servers that hang or forget, with real processes: every wait ends, and every accepted picture with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from dream.messages.states import TaskState
from dream.runs.sending import missing, own_broker
from dream.settings import Settings
from tests import promise
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts
from tests.store_proxy import StoreFault, StoreProxy

pytestmark = pytest.mark.slow

#: A run that is refused or only slow must not come to its limit.
HANGING = {"DREAM_TIME_LIMIT_S": "4", "DREAM_RETRY_FIRST_S": "0.2", "DREAM_SHUTDOWN_TIMEOUT_S": "2"}


@pytest.fixture
def store(environment: dict[str, str]) -> Iterator[StoreProxy]:
    """A network of the test's before the object store."""
    upstream = urlsplit(environment["DREAM_S3_ENDPOINT_URL"])
    with closing(StoreProxy((upstream.hostname or "", upstream.port or 0))) as store:
        yield store


def test_a_store_that_hangs_holds_no_run_beyond_its_limit_and_no_worker_beyond_its_stop(
    parts: Parts, system: System, environment: dict[str, str], store: StoreProxy, jpeg: bytes
) -> None:
    """Its own time-out is 30 s. The run's limit of 4 s is a failed attempt; SIGTERM hands the run back."""
    behind = {**HANGING, "DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}"}
    worker = parts.start("worker", **behind)
    picture = [{"name": "a.jpg", "data": jpeg}]
    with store.failing(StoreFault("GET", "staging/", hangs=True, times=1)):
        began = time.monotonic()
        first = system.await_end(system.producer.upload_images(7, picture, [0]))
        assert 4.2 <= time.monotonic() - began < 20
    assert (first.state, first.attempts) == (TaskState.SUCCEEDED, 1)

    parts.stop(worker)
    worker = parts.start("worker", **{**behind, "DREAM_TIME_LIMIT_S": "300"})
    put = StoreFault("PUT", "dreams/", hangs=True)
    with store.failing(put):
        second = system.producer.upload_images(7, picture, [0])
        wait_for(lambda: put.hits, what="a PUT that hangs")
        began = time.monotonic()
        assert parts.stop(worker) == 0
        assert time.monotonic() - began < 5
        task = system.task(second)
        assert (task.state, task.attempts, task.deaths) == (TaskState.QUEUED, 0, 0)
    parts.start("worker", **behind)
    assert system.await_end(second).state is TaskState.SUCCEEDED
    promise.sweep_the_night(environment)
    assert promise.check(environment, [first.id, second]).broken == []


def test_what_was_done_before_the_store_failed_is_kept(
    parts: Parts, system: System, environment: dict[str, str], store: StoreProxy, jpeg: bytes
) -> None:
    """A retry stores what is missing only, a run at its limit goes on uncounted, a deletion ends when all is gone."""
    parts.start("worker", **HANGING, DREAM_S3_ENDPOINT_URL=f"http://127.0.0.1:{store.port}")
    pictures = [{"name": "a.jpg", "data": jpeg}] * 3
    refused, passed = (
        StoreFault("PUT", "dreams/", status=503, times=4),
        StoreFault("PUT", "dreams/"),
    )  # asked once, and three times more by boto3
    with store.failing(refused, passed):
        batch = system.await_end(system.producer.upload_images(7, pictures, [0, 0, 0]))
    assert (batch.state, batch.attempts, passed.hits) == (TaskState.SUCCEEDED, 1, 3)

    with store.failing(StoreFault("PUT", "dreams/", times=1), StoreFault("PUT", "dreams/", hangs=True, times=1)):
        limited = system.await_end(system.producer.upload_images(8, pictures, [0, 0, 0]))
    assert (limited.state, limited.attempts, limited.deaths) == (TaskState.SUCCEEDED, 0, 0)
    assert "failed" not in {event["status"] for event in system.events(8)}

    first, *_ = rows = system.images(batch.id)
    error = f"<Error><Key>{first.storage_key}</Key><Code>InternalError</Code><Message>again</Message></Error>"
    with store.failing(StoreFault("POST", "delete", status=200, body=f"<DeleteResult>{error}</DeleteResult>", times=1)):
        named = [{"id": row.id, "url": row.url or ""} for row in rows]
        deletion = system.await_end(system.producer.delete_images(7, named, "ann"))
    assert (deletion.attempts, deletion.result) == (1, [True, True, True])
    assert promise.check(environment, [batch.id, limited.id, deletion.id]).broken == []


def test_what_the_broker_forgets_is_sent_again_within_the_time_that_is_set(
    parts: Parts, system: System, settings: Settings, environment: dict[str, str], jpeg: bytes
) -> None:
    """FLUSHALL while tasks wait: the broker holds their messages again within DREAM_RESEND_AFTER_S, here of 3 s."""
    parts.start("scheduler", DREAM_RESEND_AFTER_S="3")
    accepted = [system.producer.upload_images(each, [{"name": "a.jpg", "data": jpeg}], [0]) for each in (1, 2, 3)]
    tasks = [system.task(task_id) for task_id in accepted]
    broker = own_broker(settings)
    assert missing(broker, settings, tasks) == []
    system.redis.flushall()
    lost_at = time.monotonic()
    assert missing(broker, settings, tasks) == tasks
    wait_for(lambda: missing(broker, settings, tasks) == [], what="the messages again")
    assert time.monotonic() - lost_at < 3
    parts.start("worker")
    assert all(system.await_end(task_id).state is TaskState.SUCCEEDED for task_id in accepted)
    assert promise.check(environment, accepted, events_were_lost=True).broken == []

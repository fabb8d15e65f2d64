"""A rolling restart of two workers under load: nothing is lost, nothing is done twice, nothing is left running."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from dream.messages.states import TaskState
from tests import promise
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts, processes_with
from tests.store_proxy import StoreFault, StoreProxy

pytestmark = pytest.mark.slow

SHUTDOWN_S = 3.0


class CountingStore(StoreProxy):
    """A store's network that notes which pictures are put through it, and how often."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(upstream)
        self.puts: Counter[str] = Counter()

    def fault_for(self, method: str, path: str) -> StoreFault | None:
        if method == "PUT" and "/dreams/" in path:
            self.puts[path.partition("?")[0]] += 1
        return super().fault_for(method, path)


@pytest.fixture
def store(environment: dict[str, str]) -> Iterator[CountingStore]:
    upstream = urlsplit(environment["DREAM_S3_ENDPOINT_URL"])
    with closing(CountingStore((upstream.hostname or "", upstream.port or 0))) as store:
        yield store


def test_a_rolling_restart_under_load_does_everything_once(
    parts: Parts, system: System, environment: dict[str, str], store: CountingStore, jpeg: bytes
) -> None:
    """SIGTERM to one of two workers, then, once its successor is there, to the other, while uploads keep coming."""
    accepted: list[str] = []
    done = threading.Event()

    def upload() -> None:
        while not done.wait(0.03):
            dream_id = 1 + len(accepted) % 20  # a stream keeps 300 events
            accepted.append(system.producer.upload_images(dream_id, [{"name": "a.jpg", "data": jpeg}] * 2, [0, 0]))

    def start(name: str) -> tuple[str, subprocess.Popen[bytes]]:
        where = {"DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}", "DREAM_TEST_WORKER": name}
        return name, parts.start("worker", DREAM_SHUTDOWN_TIMEOUT_S=str(SHUTDOWN_S), **where)

    def stop(name: str, worker: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        assert parts.stop(worker) == 0
        assert time.monotonic() - began < SHUTDOWN_S + 1
        assert processes_with(f"DREAM_TEST_WORKER={name}") == []

    uploads = threading.Thread(target=upload)
    first, second = start("first"), start("second")
    uploads.start()
    try:
        wait_for(lambda: len(store.puts) > 5, what="work for both")
        stop(*first)
        third = start("third")
        stop(*second)
        so_far = len(store.puts)
        wait_for(lambda: len(store.puts) > so_far + 5, what="work for the third")
    finally:
        done.set()
        uploads.join()
    tasks = [system.await_end(task_id) for task_id in accepted]
    assert {(task.state, task.attempts, task.deaths) for task in tasks} == {(TaskState.SUCCEEDED, 0, 0)}
    assert set(store.puts.values()) == {1}
    assert len(store.puts) == 2 * len(accepted)
    assert promise.check(environment, accepted).broken == []
    stop(*third)

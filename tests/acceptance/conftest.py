"""Fixtures of the acceptance tests: the parts as real processes, and what they have come to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page

from dream.db import DreamImage, DreamTask, images
from dream.producer import Producer
from dream.settings import Settings
from dream.storage import Storage
from dream.work.redis_client import connect
from tests.conftest import wait_for
from tests.deployed import Place
from tests.pictures import noise
from tests.processes import Parts, processes_with

#: The longest modules start first, so that the processes of `make test` end together.
_LONGEST = (
    "test_page",
    "test_gallery",
    "test_stack",
    "test_systemd",
    "test_upload",
    "test_tracing",
    "test_flow",
    "test_deploy",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Acceptance tests are the last ones, and a long module at the end would keep one process busy alone."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[bool, bool]:
        return item.path.is_relative_to(here), item.path.stem not in _LONGEST

    items.sort(key=place)


@contextmanager
def quiet(page: Page) -> Iterator[Page]:
    """A page that may say nothing wrong on its console. It is closed at the end."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def parts(environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Parts]:
    """The parts of dream on this test's servers."""
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    yield parts
    parts.end()


@pytest.fixture
def parts_anew(environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Parts]:
    """The same, each started as operators start it."""
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder, anew=True)
    yield parts
    parts.end()


class System:
    """The system seen from outside: what was accepted, what the rows, the bucket and the stream say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = Producer(settings)
        self.database = self.producer.database
        self.storage = Storage(settings)
        self.redis = connect(settings.events_url)

    def task(self, task_id: str) -> DreamTask:
        with self.database.read() as session:
            task = session.get(DreamTask, task_id)
        assert task is not None
        return task

    def images(self, task_id: str) -> list[DreamImage]:
        with self.database.read() as session:
            return list(images.of_task(session, task_id))

    def await_end(self, task_id: str, timeout_s: float = 60) -> DreamTask:
        """The task once it is terminal and announced."""

        def ended() -> DreamTask | None:
            task = self.task(task_id)
            return task if task.state.is_terminal and task.announced_at else None

        ended_task = wait_for(ended, timeout_s, f"the end of task {task_id}")
        assert ended_task is not None
        return ended_task

    def events(self, dream_id: int) -> list[dict[str, Any]]:
        """The events of the dream, in order."""
        stream: Any = self.redis.xrange(f"{self.settings.redis_prefix}:events:{dream_id}")
        return [json.loads(fields[b"event"]) for _, fields in stream]

    def objects(self) -> list[str]:
        """Every key in the bucket, staged ones included."""
        return [key for key, _ in self.storage.list_keys(self.settings.s3_bucket, "")]

    def picture(self, image: DreamImage, folder: Path) -> Image.Image:
        """The stored object, decoded."""
        target = folder / "stored"
        self.storage.download(image.bucket or "", image.storage_key, target)
        return Image.open(io.BytesIO(target.read_bytes()))

    def close(self) -> None:
        self.database.dispose()
        self.redis.close()


@pytest.fixture
def place(environment: dict[str, str], tmp_path: Path) -> Iterator[Place]:
    place = Place(environment, tmp_path)
    yield place
    wait_for(lambda: not processes_with(place.mark), what="the end of every process")


@pytest.fixture
def system(settings: Settings) -> Iterator[System]:
    system = System(settings)
    yield system
    system.close()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A small picture."""
    return noise()


@pytest.fixture(scope="session")
def slow_picture() -> bytes:
    """A picture that a pool process works on for a second or more."""
    return noise(9000, 6000)

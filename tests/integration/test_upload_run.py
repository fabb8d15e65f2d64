"""One run of an upload, against real rows and staged bytes, with a pool whose moments the test chooses."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dream.actors.upload import upload
from dream.db import tasks
from dream.errors import AccessDenied, InvalidArguments, LeaseLost
from dream.imaging import Limits, Processed
from dream.messages import PROCESS_IMAGES
from dream.middleware.run import Run
from dream.notifications import Publisher
from dream.producer import Producer
from dream.settings import Settings

PICTURES = [{"name": f"{number}.jpg", "data": b"to be processed"} for number in range(3)]


class Pool:
    """Never finishes a picture, and knows whose work was cancelled.

    Parameters:
      at_last: called at the third picture.
    """

    def __init__(self, at_last: Callable[[], None]) -> None:
        self.jobs: list[Job] = []
        self._at_last = at_last

    def submit(self, source: Path, target: Path, limits: Limits) -> Job:  # noqa: ARG002
        assert source.exists()
        if len(self.jobs) == 2:
            self._at_last()
        self.jobs.append(Job())
        return self.jobs[-1]


class Job:
    def __init__(self) -> None:
        self.is_cancelled = False

    def wait(self, poll: Callable[[], None]) -> Processed:
        while True:
            poll()

    def cancel(self) -> None:
        self.is_cancelled = True


class Parts:
    """What a run works with."""

    def __init__(self, settings: Settings, producer: Producer, folder: Path, pool: Pool) -> None:
        self.settings = settings
        self.database = producer.database
        self.storage = producer.storage
        self.publisher = Publisher(settings)
        self.producer = producer
        self.pool = pool
        self._folder = folder

    @contextmanager
    def folder(self) -> Iterator[Path]:
        yield self._folder


@pytest.fixture
def run(producer: Producer, settings: Settings) -> Run:
    """A run that has claimed an upload of three pictures."""
    task_id = producer.upload_images(7, PICTURES, [0, 1, 2])
    with producer.database.begin() as session:
        claim = tasks.claim(session, task_id, settings.lease_s)
    assert claim is not None
    return Run(claim, math.inf, lost=threading.Event(), stopping=threading.Event())


def work(settings: Settings, producer: Producer, run: Run, folder: Path, at_last: Callable[[], None]) -> list[Job]:
    """The jobs of the run, which must end by an error."""
    pool = Pool(at_last)
    with pytest.raises((LeaseLost, AccessDenied)):
        upload(Parts(settings, producer, folder, pool), run, *run.claim.args)
    return pool.jobs


def test_a_run_that_loses_its_task_leaves_no_picture_in_the_pool(
    settings: Settings, producer: Producer, run: Run, tmp_path: Path
) -> None:
    """The first one is waited for when the task is lost; nobody waits for the others yet."""
    jobs = work(settings, producer, run, tmp_path, at_last=run.lost.set)
    assert [job.is_cancelled for job in jobs] == [True] * 3


def test_a_run_that_fails_while_it_submits_leaves_no_picture_in_the_pool(
    settings: Settings, producer: Producer, run: Run, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise AccessDenied

    jobs = work(settings, producer, run, tmp_path, at_last=refuse)
    assert [job.is_cancelled for job in jobs] == [True] * 2


def test_a_message_that_names_a_picture_as_its_staged_bytes_is_refused(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """The picture of somebody else would be removed with them."""
    key = "dreams/20260101/0123456789abcdef0123456789abcdef.jpg"
    with producer.database.begin() as session:
        tasks.add(session, "stranger's", PROCESS_IMAGES, [7, [{"name": "a.jpg", "staged": key}], [0]])
        session.flush()
        claim = tasks.claim(session, "stranger's", 30)
    assert claim is not None
    parts = Parts(settings, producer, tmp_path, Pool(lambda: None))
    run = Run(claim, math.inf, threading.Event(), threading.Event())
    with pytest.raises(InvalidArguments, match="staged"):
        upload(parts, run, *claim.args)

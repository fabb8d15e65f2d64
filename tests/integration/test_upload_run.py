"""One run of an upload, against real rows and staged bytes, with a pool whose moments the test chooses."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from dream.actors.inline import run_recorded
from dream.actors.upload import upload
from dream.db import DreamImage, images, tasks
from dream.errors import AccessDenied, ImageRejected, InvalidArguments, LeaseLost
from dream.imaging import Limits, Processed
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.registry import PROCESS_IMAGES
from dream.producer import NOT_SENT, Producer
from dream.runs.run import Run
from dream.settings import Settings
from tests.pictures import noise

PICTURES = [{"name": f"{number}.jpg", "data": b"to be processed"} for number in range(3)]


class Pool:
    """Never finishes a picture, and knows whose work was cancelled.

    Parameters:
      at_last: called at the third picture.
      job: the class of a picture in work.
    """

    def __init__(self, at_last: Callable[[], None], job: type[Job] | None = None) -> None:
        self.jobs: list[Job] = []
        self._at_last = at_last
        self._job = job or Job

    def submit(self, source: Path, target: Path, limits: Limits, group: str) -> Job:  # noqa: ARG002
        assert source.exists()
        if len(self.jobs) == 2:
            self._at_last()
        self.jobs.append(self._job())
        return self.jobs[-1]


class Job:
    has_begun = False

    def __init__(self) -> None:
        self.is_cancelled = False

    def wait(self, poll: Callable[[], None]) -> Processed:
        while True:
            poll()

    def cancel(self) -> None:
        self.is_cancelled = True


class Refused(Job):
    """A picture that the pool refuses."""

    def wait(self, poll: Callable[[], None]) -> Processed:  # noqa: ARG002
        raise ImageRejected("refused")


class Parts:
    """The resources of a run."""

    def __init__(self, settings: Settings, producer: Producer, folder: Path, pool: Pool) -> None:
        self.settings = settings
        self.connections = producer.connections
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


def test_a_run_of_many_pictures_has_few_of_their_files_at_a_time(
    settings: Settings, producer: Producer, tmp_path: Path
) -> None:
    """The other pictures are not fetched yet, or their files are removed: the disk and other users do not feel them."""
    task_id = producer.upload_images(7, PICTURES * 8, [0] * 24)
    with producer.database.begin() as session:
        claim = tasks.claim(session, task_id, settings.lease_s)
    assert claim is not None
    most = 0

    class Counting(Pool):
        def submit(self, source: Path, target: Path, limits: Limits, group: str) -> Job:
            nonlocal most
            most = max(most, len(list(tmp_path.rglob("in"))))
            return super().submit(source, target, limits, group)

    pool = Counting(lambda: None, Refused)
    with pytest.raises(ImageRejected):
        upload(
            Parts(settings, producer, tmp_path, pool),
            Run(claim, math.inf, threading.Event(), threading.Event()),
            *claim.args,
        )
    assert len(pool.jobs) == 24
    assert most == settings.pool_processes + 2


def test_a_picture_that_cannot_be_fetched_leaves_no_file_during_the_run(
    settings: Settings, producer: Producer, run: Run, tmp_path: Path
) -> None:
    """A store that breaks off would leave a part of each file."""
    with producer.database.read() as session:
        staged = [image.staging_key for image in images.of_task(session, run.claim.task_id)]
    producer.connections.staging.delete([key for key in staged[:2] if key])
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(ImageRejected):
        upload(Parts(settings, producer, folder, Pool(lambda: None, Refused)), run, *run.claim.args)
    assert list(folder.iterdir()) == []


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


def rows_read(producer: Producer, settings: Settings, count: int) -> int:
    """The number of rows of pictures that a run reads for an upload of so many."""
    read: list[DreamImage] = []

    def note(image: DreamImage, _: object) -> None:
        read.append(image)

    order = producer.order_upload(7, [{"name": "a.jpg", "data": noise(16, 16)}] * count, delivery=NOT_SENT)
    assert producer.accept(order)
    event.listen(DreamImage, "load", note)
    try:
        assert all(run_recorded(settings, producer, order.task_id))
    finally:
        event.remove(DreamImage, "load", note)
    return len(read)


def test_a_batch_reads_its_rows_in_proportion_to_its_pictures(producer: Producer, settings: Settings) -> None:
    """A run that read the whole batch after each picture would read nine times as many rows for three times as many."""
    few, many = rows_read(producer, settings, 4), rows_read(producer, settings, 12)
    assert few > 0
    assert many <= 3 * few


def test_a_picture_that_is_deleted_during_the_run_hides_none_of_the_others(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures after it are told as finished, and their staged bytes are removed."""
    order = producer.order_upload(7, [{"name": "a.jpg", "data": noise(16, 16)}] * 3, delivery=NOT_SENT)
    assert producer.accept(order)
    told: list[ImageUpdate] = []

    def publish(update: ImageUpdate, **_how: object) -> None:
        told.append(update)
        if update.message == "0 of 3 pictures done":  # the first one is deleted while it is in work
            with producer.database.begin() as session:
                images.mark_deleting(session, [images.of_task(session, order.task_id)[0].id])

    monkeypatch.setattr(producer.connections.publisher, "publish", publish)
    run_recorded(settings, producer, order.task_id)
    in_progress = [(each.message, len(each.images)) for each in told if each.status is UpdateStatus.PROCESSING]
    in_progress = list(dict.fromkeys(in_progress))  # a picture in work may have been worth an event
    assert in_progress == [
        ("0 of 3 pictures done", 0),
        ("2 of 3 pictures done", 1),
        ("3 of 3 pictures done", 2),
    ]
    with producer.database.read() as session:
        assert [image.staging_key for image in images.of_task(session, order.task_id)] == [None] * 3


def test_an_error_that_the_caller_gets_is_a_warning_in_the_log(
    producer: Producer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Error trackers would report it twice otherwise, and report what the caller has caught."""
    order = producer.order_upload(7, [{"name": "a.jpg", "data": b"no picture"}], delivery=NOT_SENT)
    assert producer.accept(order)
    with caplog.at_level(logging.INFO), pytest.raises(ImageRejected):
        run_recorded(settings, producer, order.task_id)
    assert [each.levelname for each in caplog.records if each.getMessage().startswith("task_failed")] == ["WARNING"]


# --- steps


def events_of(
    producer: Producer, settings: Settings, files: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> list[ImageUpdate]:
    """The events of an upload that runs at once."""
    order = producer.order_upload(7, files, delivery=NOT_SENT)
    assert producer.accept(order)
    told: list[ImageUpdate] = []
    monkeypatch.setattr(producer.connections.publisher, "publish", lambda update, **_: not told.append(update))
    assert run_recorded(settings, producer, order.task_id)
    return told


def test_events_say_the_steps_of_each_picture(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only changes are said. The last event has all pictures; no failed attempt means no `attempt`."""
    files = [{"name": "good.jpg", "data": noise(16, 16)}, {"name": "bad.jpg", "data": b"no picture"}]
    told = events_of(producer, settings, files, monkeypatch)
    steps = [[(each["name"], each["step"]) for each in event.steps] for event in told]
    assert steps == [
        [("good.jpg", "staged"), ("bad.jpg", "staged")],
        [("good.jpg", "processing")],
        [("good.jpg", "stored")],
        [("good.jpg", "stored"), ("bad.jpg", "failed")],
    ]
    assert {event.attempt for event in told} == {event.retry_at for event in told} == {None}


def test_a_large_upload_sends_hardly_more_events_than_it_has_pictures(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step alone is worth an event once a second at most."""
    began = time.monotonic()
    told = events_of(producer, settings, [{"name": "a.jpg", "data": noise(16, 16)}] * 30, monkeypatch)
    took_s = time.monotonic() - began
    assert 32 <= len(told) <= 30 + 3 + took_s


def test_without_redis_a_run_tries_no_event_for_a_step_alone(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take seconds. The changes come with the next event that Redis takes."""
    tried: list[ImageUpdate] = []
    order = producer.order_upload(7, [{"name": "a.jpg", "data": noise(16, 16)}] * 3, delivery=NOT_SENT)
    assert producer.accept(order)
    monkeypatch.setattr(producer.connections.publisher, "publish", lambda update, **_: bool(tried.append(update)))
    assert run_recorded(settings, producer, order.task_id)
    in_work = [each for each in tried if not each.images and each.status is UpdateStatus.PROCESSING]
    assert len(in_work) == 2  # the beginning, and one step
    assert [len(each.steps) for each in tried] == [3] * len(tried)

"""The documented Celery paths on real servers: called here and now, sent to a worker, and refused at the call."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image
from PIL.ExifTags import IFD, Base
from sqlalchemy import func, select

from dream import pictures, producer
from dream.celery import celery_app
from dream.celery.tasks.image_tasks import (
    celery_upload_images,
    delete_dream_images,
    delete_images,
    process_and_upload_images,
    process_image,
    upload_images,
)
from dream.celery.tasks.token_tasks import cleanup_expired_tokens
from dream.db import Database, DreamImage, DreamTask, RevokedToken, tasks
from dream.errors import ImageRejected, InvalidArguments
from dream.messages.registry import IMAGES_QUEUE
from dream.messages.states import ImageState, TaskState
from dream.settings import Settings
from dream.storage import Storage
from dream.websocket.utils import send_image_update
from dream.work.messages import DEFAULT_QUEUE
from tests.pictures import noise
from tests.processes import Parts
from tests.this_process import forget


class Web:
    """A web process whose environment points at this test's servers, and what its calls left there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database: Database = producer.default().database
        self.storage = Storage(settings)
        self.redis = redis.Redis.from_url(settings.events_url)

    def rows(self, of: type[Any]) -> list[Any]:
        with self.database.read() as session:
            return list(session.scalars(select(of).order_by(of.id)))

    def count(self, of: type[Any]) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(of)) or 0

    def objects(self) -> list[str]:
        return [key for key, _ in self.storage.list_keys(self.settings.s3_bucket, "")]

    def statuses(self, dream_id: int) -> list[str]:
        stream: Any = self.redis.xrange(f"{self.settings.redis_prefix}:events:{dream_id}")
        return [json.loads(fields[b"event"])["status"] for _, fields in stream]

    def queued(self, queue: str) -> int:
        return int(self.redis.llen(f"{self.settings.redis_prefix}:{queue}"))  # type: ignore[arg-type]


@pytest.fixture
def web(settings: Settings, as_environment: None) -> Iterator[Web]:
    web = Web(settings)
    yield web
    web.redis.close()
    web.database.dispose()


@pytest.fixture
def parts(environment: dict[str, str], tmp_path: Path) -> Iterator[Parts]:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    yield parts
    parts.end()


def encoded(data: bytes, name: str = "a.jpg") -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(data).decode()}


# --- here and now


def test_a_direct_call_returns_the_urls_and_leaves_what_a_worker_leaves(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, objects and events; and it asks no broker: there is none."""
    monkeypatch.setenv("DREAM_BROKER_URL", "redis://127.0.0.1:1/0")
    forget()
    urls = process_and_upload_images(7, [encoded(noise()), encoded(noise(), "b.jpg")], [3, 3])
    first, second = web.rows(DreamImage)
    assert urls == [first.url, second.url]
    assert [first.state, second.state] == [ImageState.COMPLETED] * 2
    assert sorted(web.objects()) == sorted([first.storage_key, second.storage_key])
    [task] = web.rows(DreamTask)
    assert (task.state, task.result, task.lease_token) == (TaskState.SUCCEEDED, urls, None)
    assert task.announced_at is not None
    assert set(web.statuses(7)[:-1]) == {"processing"}
    assert web.statuses(7)[-1] == "completed"


def test_facts_about_a_photo_are_in_its_row_and_nowhere_else(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The object, the events and the log have no facts, and the row of a deleted picture has none."""
    caplog.set_level(logging.DEBUG, "dream")
    monkeypatch.setenv("DREAM_KEEP_FACTS", "all")
    monkeypatch.setenv("DREAM_KEEP_COPYRIGHT", "yes")
    forget()
    exif, photo = Image.Exif(), io.BytesIO()
    exif[Base.Model], exif[Base.Artist] = "Dreamer 9", "Ada Lovelace"
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    Image.open(io.BytesIO(noise())).save(photo, "JPEG", exif=exif)
    [url] = process_and_upload_images(7, [encoded(photo.getvalue())], [0])
    [image] = web.rows(DreamImage)
    facts = {"taken_at": "2024-05-06T07:08:09", "model": "Dreamer 9"}
    assert image.facts == pictures.facts(7, image.id) == facts
    assert pictures.facts(8, image.id) is None
    web.storage.download(web.settings.s3_bucket, image.storage_key, tmp_path / "stored")
    stored = (tmp_path / "stored").read_bytes()
    assert len(stored) == image.size_bytes
    assert b"Ada Lovelace" in stored
    events = b"".join(fields[b"event"] for _, fields in web.redis.xrange(f"{web.settings.redis_prefix}:events:7"))
    assert not any(word in stored + events + caplog.text.encode() for word in (b"Dreamer 9", b"2024"))
    delete_dream_images(7, [{"id": 1, "url": url}], "ann")
    assert [image.facts for image in web.rows(DreamImage)] == [None]
    with pytest.raises(InvalidArguments, match="image_id must be"):
        pictures.facts(7, 0)


def test_a_direct_call_raises_where_no_picture_is_good(web: Web) -> None:
    with pytest.raises(ImageRejected, match=r"bad\.jpg"):
        process_and_upload_images(7, [encoded(b"no picture", "bad.jpg")], [0])
    [task] = web.rows(DreamTask)
    [image] = web.rows(DreamImage)
    assert (task.state, image.state) == (TaskState.FAILED, ImageState.FAILED)
    assert web.statuses(7)[-1] == "failed"


@pytest.mark.slow
def test_what_a_direct_call_had_in_work_is_removed_by_the_next_process_where_its_own_is_killed(
    web: Web, environment: dict[str, str]
) -> None:
    work_dir = Path(environment["DREAM_WORK_DIR"])
    call = (
        "import json, sys; from dream.celery.tasks.image_tasks import process_and_upload_images as run; "
        "run(7, json.load(sys.stdin), [0])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", call],
        input=json.dumps([encoded(noise())]),
        env={**os.environ, **environment, "DREAM_FAULT": "put:before=kill"},
        check=False,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(work_dir.iterdir())
    process_and_upload_images(8, [encoded(noise())], [0])
    assert not list(work_dir.iterdir())


def test_a_direct_call_leaves_a_gap_for_a_bad_picture_among_good_ones(web: Web) -> None:
    first, gap, third = process_and_upload_images(
        7, [encoded(noise()), encoded(b"no picture"), encoded(noise())], positions=[0, 1, 2]
    )
    assert first
    assert gap == ""
    assert third


def test_a_direct_deletion_says_for_each_whether_it_is_gone(web: Web) -> None:
    [url] = process_and_upload_images(7, [encoded(noise())], [0])
    [elsewhere] = process_and_upload_images(8, [encoded(noise())], [0])
    wanted = [{"id": 1, "url": url}, {"id": 2, "url": elsewhere}]
    assert delete_dream_images(7, wanted, "ann") == [True, False]
    assert [image.state for image in web.rows(DreamImage)] == [ImageState.DELETED, ImageState.COMPLETED]
    assert len(web.objects()) == 1
    assert web.statuses(7)[-1] == "delete_completed"


def test_a_direct_clean_up_returns_how_many_are_gone(web: Web) -> None:
    now = datetime.now(UTC)
    with web.database.begin() as session:
        session.add(RevokedToken(jti="old", expires_at=now - timedelta(days=1)))
        session.add(RevokedToken(jti="new", expires_at=now + timedelta(days=1)))
    assert cleanup_expired_tokens() == 1
    with web.database.read() as session:
        assert session.scalars(select(RevokedToken.jti)).all() == ["new"]


def test_with_always_eager_a_task_of_ours_runs_where_it_is_sent(web: Web) -> None:
    celery_app.conf.task_always_eager = True
    try:
        result = cleanup_expired_tokens.delay()
    finally:
        celery_app.conf.task_always_eager = False
    assert (result.state, result.get()) == ("SUCCESS", 0)
    assert [task.state for task in web.rows(DreamTask)] == [TaskState.SUCCEEDED]


@pytest.mark.slow
def test_a_direct_call_keeps_its_task_for_as_long_as_it_takes(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease is renewed: whoever tries to claim the task meanwhile gets nothing, though leases are short."""
    monkeypatch.setenv("DREAM_LEASE_S", "0.6")
    monkeypatch.setenv("DREAM_LEASE_RENEW_S", "0.2")
    forget()
    slow = encoded(noise(9000, 6000))
    refused = 0
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(process_and_upload_images, 7, [slow] * 2, [0] * 2)
        while not call.done():
            for task in web.rows(DreamTask):
                if task.state is TaskState.RUNNING:
                    with web.database.begin() as session:
                        assert tasks.claim(session, task.id, 30) is None
                    refused += 1
            wait([call], timeout=0.1)
        assert len(call.result()) == 2
    assert refused > 6, "the call was too short to say anything about its lease"


def test_a_direct_calls_lines_name_its_task_its_dream_and_its_attempt(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """As a worker's do, for whoever looks for them."""
    with caplog.at_level(logging.INFO):
        process_and_upload_images(7, [encoded(noise())], [0])
    [record] = [each for each in caplog.records if each.getMessage().startswith("image_completed")]
    [task] = web.rows(DreamTask)
    fields: dict[str, Any] = record.dream_fields  # type: ignore[attr-defined]
    assert {name: fields.get(name) for name in ("task_id", "dream_id", "attempt")} == {
        "task_id": task.id,
        "dream_id": 7,
        "attempt": 1,
    }


HOST = """
import logging
import dramatiq
from dramatiq.brokers.stub import StubBroker

broker = StubBroker()
dramatiq.set_broker(broker)
handler = logging.StreamHandler()
logging.getLogger().handlers = [handler]
logging.getLogger().setLevel(logging.ERROR)

from dream.celery.tasks.token_tasks import cleanup_expired_tokens
assert cleanup_expired_tokens() == 0
assert dramatiq.get_broker() is broker, "the host's broker was replaced"
assert logging.getLogger().handlers == [handler], "the host's logging was replaced"
assert logging.getLogger().level == logging.ERROR
"""


def test_a_direct_call_leaves_its_hosts_logging_and_broker_alone(web: Web) -> None:
    """In a fresh interpreter, as in a web process that uses Dramatiq for itself."""
    answer = subprocess.run([sys.executable, "-c", HOST], env=dict(os.environ), capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")


# --- sent


def test_a_worker_runs_what_is_sent_under_new_and_old_names(web: Web, parts: Parts) -> None:
    """Also by name alone, by the web layer's own function, and after a countdown."""
    parts.start("worker")
    sent = [
        process_and_upload_images.delay(7, [encoded(noise())], [0]),
        celery_upload_images.apply_async((7, [encoded(noise())]), {"positions": [1]}, queue=DEFAULT_QUEUE),
        celery_app.send_task(
            "dream.celery.tasks.image_tasks.celery_upload_images", [7, [encoded(noise())], [2]], task_id="mine"
        ),
        celery_app.AsyncResult(
            upload_images(dream_id=7, image_files=[{"name": "a.jpg", "data": noise()}], positions=[3])
        ),
    ]
    late = cleanup_expired_tokens.apply_async(countdown=1.5)
    urls = [url for result in sent for url in result.get(timeout=60)]
    assert sorted(urls) == sorted(image.url for image in web.rows(DreamImage))
    assert [result.state for result in sent] == ["SUCCESS"] * 4
    assert sent[2].id == "mine"
    deleted = delete_images(dream_id=7, image_urls=[{"id": 1, "url": url} for url in urls], username="ann")
    assert celery_app.AsyncResult(deleted).get(timeout=60) == [True] * 4
    assert web.objects() == []
    assert late.get(timeout=60) == 0
    [row] = [task for task in web.rows(DreamTask) if task.id == late.id]
    assert (row.finished_at - row.created_at).total_seconds() >= 1.5


def test_a_task_is_put_on_the_queue_that_is_named(web: Web) -> None:
    process_and_upload_images.delay(7, [encoded(noise())], [0])
    process_and_upload_images.apply_async((7, [encoded(noise())], [0]), queue=DEFAULT_QUEUE)
    cleanup_expired_tokens.delay()
    assert (web.queued(IMAGES_QUEUE), web.queued(DEFAULT_QUEUE)) == (1, 2)


def test_a_second_task_of_the_same_id_is_not_accepted(web: Web) -> None:
    """Nor does it leave bytes or a message; its caller gets the result of the first."""
    for _ in range(2):
        result = process_and_upload_images.apply_async((7, [encoded(noise())], [0]), task_id="mine")
        assert (result.id, result.state) == ("mine", "PENDING")
    assert (web.count(DreamTask), web.count(DreamImage), len(web.objects())) == (1, 1, 1)
    assert web.queued(IMAGES_QUEUE) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((7, [encoded(b"x")], [0, 1]), "1 file but 2 positions"),
        ((7, [], []), "empty"),
        ((7, [encoded(b"")], [0]), "is empty"),
        ((0, [encoded(b"x")], [0]), "dream_id"),
        ((7, [{"name": "a.jpg", "data": "no base64!"}], [0]), r"encoded_files\[0\] \(a.jpg\): data is not base64"),
        ((7, [{"name": "a.jpg", "staged": "staging/of-somebody-else"}], [0]), r"encoded_files\[0\] must be"),
        ((7, "abc", [0]), "encoded_files must be a list"),
    ],
)
@pytest.mark.parametrize("call", [process_and_upload_images, process_and_upload_images.delay], ids=["here", "sent"])
def test_wrong_arguments_raise_at_the_call_and_nothing_is_stored(
    web: Web, call: Any, arguments: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(InvalidArguments, match=said):
        call(*arguments)
    assert (web.count(DreamTask), web.objects(), web.queued(IMAGES_QUEUE)) == (0, [], 0)


# --- the other names


def test_an_update_of_the_callers_own_reaches_the_dreams_stream(web: Web) -> None:
    assert send_image_update(7, ["https://x/a.jpg"], status="processing", message="half", progress=50) is True
    assert web.statuses(7) == ["processing"]


def test_a_picture_can_be_processed_without_any_server() -> None:
    assert Image.open(io.BytesIO(process_image(noise(), "a.jpg", max_size=20_000))).format == "JPEG"
    with pytest.raises(ImageRejected):
        process_image(b"no picture", "a.jpg")

"""Kept originals and the quota of a user: real runs of uploads and deletions, on a real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from sqlalchemy import update

from dream.actors.inline import run_recorded
from dream.db import DreamImage, dead_letters, images
from dream.db.clock import now
from dream.errors import ImageRejected, InvalidArguments, QuotaExceeded
from dream.messages.states import ImageState
from dream.producer import NOT_SENT, Producer
from dream.scheduler.removal import Orphans, Retention
from dream.settings import Settings
from dream.storage import Storage, new_key_stem
from tests.pictures import noise

NAME = 'a "fine"\n../päge.html'


@pytest.fixture(params=["store", "folder"])
def keeping(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    settings: Settings,
    settings_of: Callable[..., Settings],
    tmp_path: Path,
) -> Settings:
    """Settings that keep originals; uploads wait in the store, or in a folder."""
    folder = {"staging_dir": str(tmp_path / "staging")} if request.param == "folder" else {}
    bucket = f"{settings.s3_bucket}-originals"
    Storage(settings).ensure_bucket(bucket)
    return settings_of(environment, keep_originals="yes", originals_bucket=bucket, variants="thumb:64", **folder)


@pytest.fixture
def producer(keeping: Settings) -> Iterator[Producer]:
    producer = Producer(keeping)
    yield producer
    producer.database.dispose()


def upload(producer: Producer, data: bytes, *, user_id: int | None = 1, name: str = NAME) -> DreamImage:
    """The row of a picture that was uploaded and processed here."""
    order = producer.order_upload(7, [{"name": name, "data": data}], delivery=NOT_SENT, user_id=user_id)
    assert producer.accept(order)
    run_recorded(producer.settings, producer, order.task_id)
    return row_of(producer, order.task_id)


def row_of(producer: Producer, task_id: str) -> DreamImage:
    with producer.database.read() as session:
        (row,) = images.of_task(session, task_id)
    return row


def delete(producer: Producer, image: DreamImage) -> None:
    order = producer.order_deletion(7, [{"id": 0, "url": image.url or ""}], "ann", delivery=NOT_SENT)
    assert producer.accept(order)
    assert run_recorded(producer.settings, producer, order.task_id) == [True]


def originals(settings: Settings) -> set[str]:
    return {key for key, _ in Storage(settings).list_keys(settings.originals_bucket or "", "")}


def test_an_original_is_kept_as_it_came_and_goes_with_its_picture(producer: Producer, keeping: Settings) -> None:
    data = noise(90, 60)
    image = upload(producer, data)
    assert originals(keeping) == {image.original_key}
    assert image.original_bucket == keeping.originals_bucket
    assert (image.original_bytes, image.made_at is not None) == (len(data), True)
    variants = sum(each["size_bytes"] for each in image.variants)
    assert variants
    assert image.stored_bytes == (image.size_bytes or 0) + variants + len(data)
    delete(producer, image)
    assert originals(keeping) == set()


def test_its_owner_saves_it_under_its_own_name(producer: Producer) -> None:
    """The URL cannot make a browser show what may be HTML, and names no folder."""
    data = noise(90, 60)
    image = upload(producer, data)
    url = producer.original_url(7, image.id)
    assert url is not None
    answer = httpx.get(url)
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "private, no-store"
    saved = answer.headers["content-disposition"]
    assert saved.startswith('attachment; filename="')
    assert unquote(saved.rpartition("''")[2]) == 'a "fine"_.._päge.html'
    assert producer.original_url(8, image.id) is None
    assert producer.original_url(7, image.id + 1) is None
    with pytest.raises(InvalidArguments, match="image_id must be a positive integer"):
        producer.original_url(7, "1; --")  # type: ignore[arg-type]


def test_a_refused_file_is_not_kept(producer: Producer, keeping: Settings) -> None:
    with pytest.raises(ImageRejected):
        upload(producer, b"no picture at all")
    assert originals(keeping) == set()


def test_pictures_of_processes_that_keep_nothing_have_no_original(
    producer: Producer, keeping: Settings, settings: Settings
) -> None:
    image = upload(Producer(settings, producer.connections), noise(90, 60))
    assert (image.original_key, producer.original_url(7, image.id), originals(keeping)) == (None, None, set())


@pytest.mark.slow
@pytest.mark.parametrize("state", [ImageState.DELETED, ImageState.FAILED])
def test_an_original_that_a_paused_run_stored_too_late_is_swept(
    producer: Producer, keeping: Settings, state: ImageState
) -> None:
    """A picture that is replayed after that gets a new place, because the sweep may still be deleting the old one."""
    image = upload(producer, noise(90, 60))
    with producer.database.begin() as session:
        gone = update(DreamImage).where(DreamImage.id == image.id)
        session.execute(gone.values(state=state, updated_at=now(-3601)))
    assert originals(keeping)
    Orphans(keeping, producer.connections).remove()
    assert originals(keeping) == set()


def test_a_replay_after_the_sweep_keeps_its_original_at_a_new_place(producer: Producer, keeping: Settings) -> None:
    with pytest.raises(ImageRejected):
        upload(producer, b"no picture at all")
    with producer.database.begin() as session:
        (task,) = dead_letters.list_dead(session)
        session.execute(update(DreamImage).values(updated_at=now(-3601)))
    before = row_of(producer, task.id)
    Orphans(keeping, producer.connections).remove()
    with producer.database.begin() as session:
        assert dead_letters.revive(session, task.id, new_key_stem)
    with pytest.raises(ImageRejected):
        run_recorded(keeping, producer, task.id)
    after = row_of(producer, task.id)
    assert before.original_key
    assert after.original_key
    assert before.original_key != after.original_key


# --- quota


@pytest.fixture
def limited(producer: Producer, keeping: Settings) -> Producer:
    """A producer with a quota that has space for one picture of 90 × 60 pixels with its original, and not for two."""
    most = 3 * len(noise(90, 60))
    return Producer(keeping.model_copy(update={"max_stored_bytes_per_user": most}), producer.connections)


def test_a_user_whose_space_is_full_is_refused_until_a_picture_is_deleted(limited: Producer, keeping: Settings) -> None:
    data = noise(90, 60)
    first = upload(limited, data)
    with pytest.raises(QuotaExceeded, match=r"DREAM_MAX_STORED_BYTES_PER_USER"):
        upload(limited, data)
    with limited.database.read() as session:
        assert len(images.list_images(session, 7)) == 1
    assert upload(limited, data, user_id=2).state is ImageState.COMPLETED
    assert upload(limited, data, user_id=None).state is ImageState.COMPLETED
    delete(limited, first)
    assert upload(limited, data).state is ImageState.COMPLETED


def test_waiting_uploads_count_with_their_bytes_and_refused_ones_do_not(limited: Producer) -> None:
    """Otherwise many uploads could be accepted before the first one is done."""
    data = noise(90, 60)
    limited.upload_images(7, [{"name": "a.jpg", "data": data}] * 2, user_id=1)
    with pytest.raises(QuotaExceeded):
        limited.upload_images(7, [{"name": "a.jpg", "data": data}] * 2, user_id=1)
    with pytest.raises(ImageRejected):
        upload(limited, b"no picture" * (len(data) // 20), user_id=2)
    with limited.database.read() as session:
        assert images.stored_by(session, 1) == 2 * len(data)
        assert images.stored_by(session, 2) == 0


def test_pictures_of_older_releases_are_counted_by_the_scheduler(producer: Producer, keeping: Settings) -> None:
    image = upload(producer, noise(90, 60))
    with producer.database.begin() as session:
        session.execute(update(DreamImage).values(stored_bytes=None, original_key=None, original_bytes=None))
    Retention(keeping, producer.database).prune()
    with producer.database.read() as session:
        counted = images.stored_by(session, 1)
    assert counted == (image.size_bytes or 0) + sum(each["size_bytes"] for each in image.variants)

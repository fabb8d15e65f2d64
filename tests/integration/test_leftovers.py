"""The nightly removal: what nothing needs goes, and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import update

from dream.db import DreamImage, dead_letters, images, tasks
from dream.db.clock import now
from dream.messages.states import Failure, ImageState
from dream.producer import Producer
from dream.runs import outcomes
from dream.scheduler import removal
from dream.scheduler.removal import Orphans
from dream.settings import Settings
from dream.storage import Storage, new_key_stem
from dream.storage.keys import variant_key

PICTURE = {"name": "a.jpg", "data": b"to be processed"}


@pytest.fixture
def leftovers(settings: Settings, producer: Producer) -> Orphans:
    return Orphans(settings, producer.connections)


def uploaded(producer: Producer, state: ImageState) -> DreamImage:
    """A picture in that state since an hour, whose run had put an object before it ended."""
    task_id = producer.upload_images(7, [PICTURE], [0])
    with producer.database.begin() as session:
        if state is ImageState.FAILED:
            claim = tasks.claim(session, task_id, 30)
            assert claim is not None
            outcomes.conclude_failure(session, claim, Failure("gave up"))
        (row,) = images.of_task(session, task_id)
        key = f"{row.storage_key}.jpg"
        producer.storage.put_bytes(row.bucket or "", key, b"object")
        values = {"state": state, "updated_at": now(-3601)}
        if state is ImageState.COMPLETED:
            values["storage_key"] = key
        session.execute(update(DreamImage).where(DreamImage.id == row.id).values(**values))
    with producer.database.read() as session:
        (row,) = images.of_task(session, task_id)
    return row


def keys(settings: Settings) -> set[str]:
    return {key for key, _ in Storage(settings).list_keys(settings.s3_bucket, "")}


def test_objects_of_failed_and_deleted_pictures_go(producer: Producer, leftovers: Orphans, settings: Settings) -> None:
    """A run that died between its object and its row leaves nothing; completed and waiting pictures stay whole."""
    failed, _, done, waiting = [
        uploaded(producer, state)
        for state in (ImageState.FAILED, ImageState.DELETED, ImageState.COMPLETED, ImageState.PENDING)
    ]
    leftovers.remove()
    # The failed one's bytes wait for a replay, the waiting one's for its run (whose object is as good as done).
    expected = {failed.staging_key, waiting.staging_key, done.storage_key, f"{waiting.storage_key}.jpg"}
    assert keys(settings) == expected


@pytest.mark.parametrize("state", [ImageState.FAILED, ImageState.DELETED])
def test_variants_of_failed_and_deleted_pictures_go(
    producer: Producer, leftovers: Orphans, settings: Settings, state: ImageState
) -> None:
    """Those that a run has wanted, in whatever format, though the settings want none by now."""
    row = uploaded(producer, state)
    with producer.database.begin() as session:
        values = {"wanted_variants": [["thumb", 320], ["m", 640]], "updated_at": now(-3601)}
        session.execute(update(DreamImage).where(DreamImage.id == row.id).values(**values))
    left_behind = [variant_key(row.storage_key, "thumb", "jpg"), variant_key(row.storage_key, "m", "webp")]
    stranger = variant_key(new_key_stem(), "thumb", "jpg")
    for key in (*left_behind, stranger):
        producer.storage.put_bytes(settings.s3_bucket, key, b"variant")
    leftovers.remove()
    assert keys(settings) - {row.staging_key} == {stranger}


@pytest.mark.parametrize("state", [ImageState.FAILED, ImageState.DELETED])
def test_a_picture_that_cannot_be_deleted_holds_up_no_other(
    producer: Producer, leftovers: Orphans, settings: Settings, monkeypatch: pytest.MonkeyPatch, state: ImageState
) -> None:
    """Each batch is noted when it ends, so a kill leaves no more than one to no later night."""
    monkeypatch.setattr(removal, "_AT_ONCE", 1)
    rows = [uploaded(producer, state) for _ in range(3)]
    with producer.database.begin() as session:
        lost = update(DreamImage).where(DreamImage.id == rows[0].id)
        session.execute(lost.values(bucket="no-such-bucket", updated_at=now(-3602)))
    assert leftovers.remove()["objects"] == 2
    with producer.database.read() as session:
        swept = [images.of_task(session, row.task_id)[0].swept for row in rows]
    assert swept == [False, True, True]
    assert keys(settings) - {row.staging_key for row in rows} == {f"{rows[0].storage_key}.jpg"}


def test_staged_bytes_that_cannot_be_deleted_hold_up_no_other(
    producer: Producer, leftovers: Orphans, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, those in a folder that `DREAM_STAGING_DIR` no longer names."""
    monkeypatch.setattr(removal, "_AT_ONCE", 1)
    rows = [uploaded(producer, ImageState.COMPLETED) for _ in range(2)]
    with producer.database.begin() as session:
        lost = update(DreamImage).where(DreamImage.id == rows[0].id)
        session.execute(lost.values(staging_key=f"staging/folder-{'0' * 12}/{'0' * 32}", updated_at=now(-3602)))
    assert leftovers.remove()["staged"] == 1
    assert rows[1].staging_key not in keys(settings)


def test_a_stop_ends_the_removal_where_it_is(producer: Producer, settings: Settings) -> None:
    uploaded(producer, ImageState.FAILED)
    stopping = threading.Event()
    stopping.set()
    before = keys(settings)
    assert set(Orphans(settings, producer.connections, stopping).remove().values()) == {0}
    assert keys(settings) == before


def test_a_picture_replayed_after_the_sweep_has_another_key(producer: Producer, leftovers: Orphans) -> None:
    """The sweep may still be deleting the old one."""
    failed = uploaded(producer, ImageState.FAILED)
    leftovers.remove()
    with producer.database.begin() as session:
        assert dead_letters.revive(session, failed.task_id, new_key_stem)
    with producer.database.read() as session:
        (row,) = images.of_task(session, failed.task_id)
    assert row.storage_key != failed.storage_key
    assert row.wanted_variants is None
    assert (row.state, row.swept) == (ImageState.PENDING, False)


def test_staged_bytes_without_a_row_go_when_they_are_old(
    producer: Producer, settings: Settings, environment: dict[str, str], settings_of: object, tmp_path: Path
) -> None:
    producer.upload_images(7, [PICTURE], [0])
    producer.storage.put_bytes(settings.s3_bucket, "staging/20260101/orphan", b"x")
    producer.storage.put_bytes(settings.s3_bucket, "dreams/20200101/" + "a" * 32 + ".jpg", b"old, without a row")
    before = keys(settings)
    Orphans(settings, producer.connections).remove()
    assert keys(settings) == before
    soon = settings.model_copy(update={"staging_orphan_s": 0.001})
    Orphans(soon, producer.connections).remove()
    assert keys(settings) == before - {"staging/20260101/orphan"}

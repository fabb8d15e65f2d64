"""A dream that has an upload already: the newer picture names the older one, and both stay."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dream.actors.inline import _InlineResources, run_recorded
from dream.actors.upload import upload
from dream.db import DreamImage, images, tasks
from dream.errors import ImageRejected
from dream.messages.events import ImageUpdate
from dream.messages.states import ImageState
from dream.producer import NOT_SENT, Producer
from dream.runs.run import Run
from dream.settings import Settings
from tests.pictures import noise

DREAM, OTHER = 7, 8
FIRST, SECOND = noise(16, 16), noise(16, 16)


class Uploads:
    """Uploads whose runs take place here and now."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self._settings = settings
        self.producer = producer

    def run(self, *files: bytes, dream_id: int = DREAM) -> list[int]:
        """The ids of the pictures."""
        named = [{"name": f"{number}.jpg", "data": data} for number, data in enumerate(files)]
        order = self.producer.order_upload(dream_id, named, delivery=NOT_SENT)
        assert self.producer.accept(order)
        run_recorded(self._settings, self.producer, order.task_id)
        return [row.id for row in self.rows(order.task_id)]

    def rows(self, task_id: str) -> Sequence[DreamImage]:
        with self.producer.database.read() as session:
            return images.of_task(session, task_id)

    def listed(self, dream_id: int = DREAM) -> dict[int, int | None]:
        """`duplicate_of` by the ids of the dream's pictures."""
        return {each["id"]: each["duplicate_of"] for each in self.producer.list_images(dream_id)}


@pytest.fixture
def uploads(settings: Settings, producer: Producer) -> Uploads:
    return Uploads(settings, producer)


def test_a_picture_names_the_one_that_the_dream_has_already(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one upload, and in a later one; never one of another dream. The events say the same as the list."""
    told: dict[int, Any] = {}

    def publish(update: ImageUpdate, **_how: object) -> bool:
        told.update({each["id"]: each.get("duplicate_of") for each in update.images})
        return True

    monkeypatch.setattr(uploads.producer.connections.publisher, "publish", publish)
    elsewhere = uploads.run(FIRST, dream_id=OTHER)
    one, other, twin = uploads.run(FIRST, SECOND, FIRST)
    later, last = uploads.run(SECOND, FIRST)
    assert uploads.listed() == {one: None, other: None, twin: one, later: other, last: one}
    assert uploads.listed(OTHER) == {elsewhere[0]: None}
    assert told == uploads.listed() | uploads.listed(OTHER)


def test_a_deleted_picture_is_no_longer_there(uploads: Uploads) -> None:
    """The answer that was given before stays as it is."""
    one, twin = uploads.run(FIRST, FIRST)
    with uploads.producer.database.begin() as session:
        images.mark_deleting(session, [one])
    (third,) = uploads.run(FIRST)
    assert uploads.listed() == {twin: one, third: twin}


def test_a_picture_that_failed_is_no_picture_to_name(uploads: Uploads) -> None:
    with pytest.raises(ImageRejected):
        uploads.run(b"no picture")
    with pytest.raises(ImageRejected):
        uploads.run(b"no picture")
    assert set(uploads.listed().values()) == {None}


def test_a_row_has_the_hashes_of_its_upload(uploads: Uploads) -> None:
    """Two files with the same pixels differ in `sha256`, and not in `perceptual_hash`."""
    plain = noise(300, 200)
    ids = uploads.run(plain, plain + b"\x00")
    with uploads.producer.database.read() as session:
        rows = [session.get_one(DreamImage, image_id) for image_id in ids]
    assert [row.sha256 for row in rows] == [hashlib.sha256(data).hexdigest() for data in (plain, plain + b"\x00")]
    assert {len(row.perceptual_hash or "") for row in rows} == {16}
    assert len({row.perceptual_hash for row in rows}) == 1
    assert [row.duplicate_of for row in rows] == [None, None]


def test_uploads_at_the_same_moment_are_all_stored(uploads: Uploads) -> None:
    """Each names another one or none, and following the names comes to an end."""
    with ThreadPoolExecutor(4) as threads:
        ids = [image_id for run in threads.map(lambda _: uploads.run(FIRST), range(8)) for image_id in run]
    named = uploads.listed()
    assert set(named) == set(ids)
    assert {each["state"] for each in uploads.producer.list_images(DREAM)} == {"completed"}
    for image_id in ids:
        seen = [image_id]
        while (older := named[seen[-1]]) is not None:
            assert older not in seen
            seen.append(older)


def test_a_second_run_keeps_the_answers_of_the_first(
    uploads: Uploads, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run ends after its second picture, as a killed one does; the second does the rest."""
    producer = uploads.producer
    order = producer.order_upload(DREAM, [{"name": "a.jpg", "data": FIRST}] * 3, delivery=NOT_SENT)
    assert producer.accept(order)
    with producer.database.begin() as session:
        claim = tasks.claim(session, order.task_id, 0.001)
    assert claim is not None
    resources = _InlineResources(settings, producer)
    run = Run(claim, math.inf, threading.Event(), threading.Event())
    with monkeypatch.context() as patch:
        patch.setattr(producer.connections.publisher, "publish", interrupt_at("2 of 3 pictures done"))
        with pytest.raises(KeyboardInterrupt):
            upload(resources, run, *claim.args)
    before = uploads.rows(order.task_id)
    assert [row.state for row in before] == [ImageState.COMPLETED] * 2 + [ImageState.PROCESSING]
    run_recorded(settings, producer, order.task_id)
    first = before[0].id
    assert [row.duplicate_of for row in uploads.rows(order.task_id)] == [None, first, first]


def interrupt_at(message: str) -> Callable[..., bool]:
    def publish(update: ImageUpdate, **_how: object) -> bool:
        if update.message == message:
            raise KeyboardInterrupt
        return True

    return publish

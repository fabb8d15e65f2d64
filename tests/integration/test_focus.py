"""Given focal points: from every kind of upload into the row, and into the crops."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

import dream.pictures
from dream import fault_points
from dream.actors.inline import run_recorded
from dream.db import DreamImage, DreamTask, images, tasks
from dream.errors import InvalidArguments
from dream.messages.pictures import image_info, image_ref
from dream.messages.registry import MAKE_VARIANT, PROCESS_IMAGES, kind_of
from dream.messages.states import TaskState
from dream.pictures.focus import give_focus
from dream.producer import NOT_SENT, Producer
from dream.producer.orders import Order, order_of
from dream.settings import Settings
from dream.storage.keys import variant_object_key
from dream.variants import VariantSpec
from tests.this_process import configured

SetFocus = Callable[..., bool]
RED, GREY = (220, 30, 40), (110, 110, 110)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"variants": (VariantSpec.parse("square:100:cover"), VariantSpec.parse("small:100"))}
    )


@pytest.fixture
def set_focus(environment: dict[str, str], settings: Settings) -> Iterator[SetFocus]:
    """The public call, in a process that is configured by its environment."""
    with configured(environment):
        yield dream.pictures.set_focus


def two_halves() -> bytes:
    """A grey picture whose right end is red."""
    picture, file = Image.new("RGB", (900, 300), GREY), io.BytesIO()
    picture.paste(RED, (600, 0, 900, 300))
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def row_of(producer: Producer, task_id: str) -> DreamImage:
    with producer.database.read() as session:
        return images.of_task(session, task_id)[0]


def is_red(producer: Producer, image: DreamImage, folder: Path) -> bool:
    """Whether the middle of the stored square is red."""
    key = next(variant_object_key(each) for each in image.variants if each["name"] == "square")
    path = folder / "square"
    producer.storage.download(image.bucket or "", key, path)
    with Image.open(path) as square:
        assert square.size == (100, 100)
        red, green, _ = square.convert("RGB").getpixel((50, 50))  # type: ignore[misc]
    return bool(red > 2 * green)


@pytest.mark.parametrize(("focus", "shows_red"), [([0.9, 0.5], True), ((0, 0.5), False), (None, False)])
def test_a_focal_point_of_an_upload_is_in_the_row_the_crop_and_the_lists(
    producer: Producer, settings: Settings, tmp_path: Path, focus: Any, shows_red: bool
) -> None:
    file: Any = {"name": "a.jpg", "data": two_halves(), "focus": focus}
    order = producer.order_upload(7, [file], delivery=NOT_SENT)
    producer.accept(order)
    before = row_of(producer, order.task_id)
    assert before.focus == (None if focus is None else [float(share) for share in focus])
    run_recorded(settings, producer, order.task_id)
    image = row_of(producer, order.task_id)
    assert image.focus == before.focus
    assert image.found_focus is not None
    assert 0 <= min(image.found_focus) <= max(image.found_focus) <= 1
    assert image_info(image)["focus"] == image.focus
    assert image_info(image)["found_focus"] == image_ref(image)["found_focus"] == image.found_focus
    assert image_ref(image).get("focus") == image.focus
    if focus is not None:
        assert is_red(producer, image, tmp_path) is shows_red


def test_a_call_of_the_task_keeps_the_focal_point(producer: Producer) -> None:
    kind = kind_of(PROCESS_IMAGES)
    assert kind is not None
    files = [{"name": "a.jpg", "data": base64.b64encode(two_halves()).decode(), "focus": [1, 0.25]}]
    order: Order = order_of(kind, producer, "called", NOT_SENT, 7, files, [0])
    producer.accept(order)
    assert row_of(producer, "called").focus == [1, 0.25]
    assert order.args[1][0].keys() == {"name", "staged", "focus"}


def test_a_message_of_another_sender_keeps_the_focal_point(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """Its sender wrote no picture's row; the run writes it, and a second run finds the bytes staged."""
    files = [{"name": "a.jpg", "data": base64.b64encode(two_halves()).decode(), "focus": [0.9, 0.5]}]
    with producer.database.begin() as session:
        tasks.add(session, "strange", PROCESS_IMAGES, [7, files, [0]], 0, None, None)
    run_recorded(settings, producer, "strange")
    image = row_of(producer, "strange")
    assert image.focus == [0.9, 0.5]
    assert is_red(producer, image, tmp_path)


# --- a stored picture


def test_python_gives_a_stored_picture_its_focal_point(producer: Producer, set_focus: SetFocus) -> None:
    order = producer.order_upload(7, [{"name": "a.jpg", "data": two_halves()}], delivery=NOT_SENT)
    producer.accept(order)
    image = row_of(producer, order.task_id)
    assert set_focus(7, image.id, (0.25, 1))
    written = row_of(producer, order.task_id)
    assert written.focus == [0.25, 1]
    assert written.updated_at == image.updated_at
    assert not set_focus(8, image.id, [0, 0])
    assert not set_focus(7, image.id + 1, [0, 0])
    assert set_focus(7, image.id, None)
    assert row_of(producer, order.task_id).focus is None


@pytest.mark.parametrize("arguments", [(0, 1, None), (7, True, None), (7, "1", [0, 0]), (7, 1, [0]), (7, 1, [0, 1.5])])
def test_wrong_arguments_are_one_clear_error(set_focus: SetFocus, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArguments, match=r"^(dream_id|image_id|focus) must be "):
        set_focus(*arguments)


# --- crops made anew


def stored_picture(producer: Producer, settings: Settings, **file: Any) -> str:
    """Upload and process a picture; returns its task's id."""
    order = producer.order_upload(7, [{"name": "a.jpg", "data": two_halves(), **file}], delivery=NOT_SENT)
    producer.accept(order)
    run_recorded(settings, producer, order.task_id)
    return order.task_id


def to_make(producer: Producer) -> list[str]:
    """The ids of the tasks that wait to make a variant."""
    waiting = select(DreamTask.id).where(DreamTask.name == MAKE_VARIANT, DreamTask.state == TaskState.QUEUED)
    with producer.database.read() as session:
        return list(session.scalars(waiting.order_by(DreamTask.created_at)))


@contextmanager
def once_stored(act: Callable[[], None]) -> Iterator[None]:
    """Act once a run has put its objects, before its row has them."""
    acts = [act]

    def watcher(name: str, _took_s: float) -> None:
        if name == "put" and acts:
            acts.pop()()

    fault_points.watch(watcher)
    try:
        yield
    finally:
        fault_points.watch(None)
    assert acts == []


def give(producer: Producer, task_id: str, focus: list[float] | None) -> None:
    assert give_focus(producer, 7, row_of(producer, task_id).id, focus) is not None


def test_a_new_focal_point_makes_the_stored_crops_anew_under_their_urls(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    task_id = stored_picture(producer, settings, focus=[0, 0.5])
    before = row_of(producer, task_id)
    assert not is_red(producer, before, tmp_path)
    give(producer, task_id, [0.9, 0.5])
    assert not is_red(producer, row_of(producer, task_id), tmp_path)
    [making] = to_make(producer)
    run_recorded(settings, producer, making)
    after = row_of(producer, task_id)
    assert is_red(producer, after, tmp_path)
    assert {each["url"] for each in after.variants} == {each["url"] for each in before.variants}
    assert to_make(producer) == []
    give(producer, task_id, [0.9, 0.5])
    assert to_make(producer) == []


def test_points_that_follow_each_other_end_with_the_last_one(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """The tasks run in any order, and a task for a point that no longer counts makes nothing."""
    task_id = stored_picture(producer, settings, focus=[0, 0.5])
    for focus in ([0.9, 0.5], [0.5, 0.5], [0, 0.5], [0.85, 0.5]):
        give(producer, task_id, list(focus))
    waiting = to_make(producer)
    assert len(waiting) == 3
    for making in reversed(waiting):
        run_recorded(settings, producer, making)
    assert is_red(producer, row_of(producer, task_id), tmp_path)
    assert to_make(producer) == []


def test_a_point_given_while_a_crop_is_made_has_a_crop_of_its_own(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """Back to the point of the stored crop: nothing is ordered, but the run that ends later orders it."""
    task_id = stored_picture(producer, settings, focus=[0.9, 0.5])
    give(producer, task_id, [0, 0.5])
    [making] = to_make(producer)

    with once_stored(lambda: give(producer, task_id, [0.9, 0.5])):
        run_recorded(settings, producer, making)
    [again] = to_make(producer)
    run_recorded(settings, producer, again)
    assert is_red(producer, row_of(producer, task_id), tmp_path)
    assert to_make(producer) == []


def test_a_point_given_while_a_picture_is_processed_counts(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    order = producer.order_upload(7, [{"name": "a.jpg", "data": two_halves(), "focus": [0, 0.5]}], delivery=NOT_SENT)
    producer.accept(order)

    with once_stored(lambda: give(producer, order.task_id, [0.9, 0.5])):
        run_recorded(settings, producer, order.task_id)
    [making] = to_make(producer)
    run_recorded(settings, producer, making)
    assert is_red(producer, row_of(producer, order.task_id), tmp_path)


def test_a_rolled_back_point_orders_nothing(producer: Producer, settings: Settings) -> None:
    task_id = stored_picture(producer, settings)
    image_id = row_of(producer, task_id).id
    with suppress(RuntimeError), producer.database.begin() as session:
        image = images.give_focus(session, 7, image_id, [0.9, 0.5])
        assert image is not None
        producer.accept_crops(image, session)
        raise RuntimeError
    assert to_make(producer) == []
    assert row_of(producer, task_id).focus is None

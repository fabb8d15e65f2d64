"""One run that makes a version of a stored picture, against real rows and objects."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from dream.actors.inline import run_recorded
from dream.db import DreamImage, DreamTask, images
from dream.errors import ImageRejected, InvalidArguments, LeaseLost, RunContinues, TooManyVariants
from dream.messages.pictures import VariantRef
from dream.messages.registry import MAKE_VARIANT
from dream.messages.states import ImageState, TaskState
from dream.messages.variants import ask_for, larger, stored, task_of
from dream.producer import NOT_SENT, Producer
from dream.producer.orders import Order
from dream.settings import Settings
from dream.storage.keys import object_key, object_stem, variant_key, variant_object_key
from dream.variants import VariantSpec
from tests import gain_maps
from tests.pictures import noise
from tests.promise import sweep_the_night

CARD = VariantSpec.parse("card:64x64:cover")


def upload(producer: Producer, settings: Settings, data: bytes | None = None) -> int:
    """A stored picture; returns its id."""
    order = producer.order_upload(7, [{"name": "a.jpg", "data": data or noise(400, 200)}], delivery=NOT_SENT)
    producer.accept(order)
    run_recorded(settings, producer, order.task_id)
    with producer.database.read() as session:
        return images.of_task(session, order.task_id)[0].id


def row_of(producer: Producer, image_id: int) -> DreamImage:
    with producer.database.read() as session:
        image = session.get(DreamImage, image_id)
    assert image is not None
    return image


def order(producer: Producer, image_id: int, spec: VariantSpec | None = CARD, extension: str | None = None) -> str:
    """Record the task as the gateway does; returns its id."""
    image = row_of(producer, image_id)
    task_id, args = task_of(image, ask_for(image, spec, extension))
    producer.accept(Order(task_id, MAKE_VARIANT, args, NOT_SENT))
    return task_id


def make(
    producer: Producer,
    settings: Settings,
    image_id: int,
    spec: VariantSpec | None = CARD,
    extension: str | None = None,
) -> Any:
    return run_recorded(settings, producer, order(producer, image_id, spec, extension))


def keys_in(producer: Producer, settings: Settings) -> set[str]:
    return {key for key, _ in producer.storage.list_keys(settings.s3_bucket, "dreams/")}


def size_of(producer: Producer, settings: Settings, key: str, folder: Path) -> tuple[int, int]:
    producer.storage.download(settings.s3_bucket, key, folder / "object")
    with Image.open(folder / "object") as image:
        return image.size


def test_a_version_is_a_row_and_an_object_like_the_others(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """It is listed with its size and URL, its object is a crop of the picture, and a deletion takes it."""
    image_id = upload(producer, settings)
    url = make(producer, settings, image_id)
    image = row_of(producer, image_id)
    [card] = image.variants
    assert (card["name"], card["url"], card["width_px"], card["height_px"]) == ("card", url, 64, 64)
    [listed] = producer.list_images(7)[0]["variants"]
    assert set(listed) == {"name", "url", "width_px", "height_px", "size_bytes", "content_type"}
    assert size_of(producer, settings, variant_object_key(card), tmp_path) == (64, 64)
    assert keys_in(producer, settings) == {object_key(image), variant_object_key(card)}
    deletion = producer.order_deletion(7, [{"id": 1, "url": image.url or ""}], "olga", delivery=NOT_SENT)
    producer.accept(deletion)
    assert run_recorded(settings, producer, deletion.task_id) == [True]
    assert keys_in(producer, settings) == set()


def test_all_who_ask_name_one_task(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    assert order(producer, image_id) == order(producer, image_id)
    with producer.database.read() as session:
        assert len(session.scalars(select(DreamTask).where(DreamTask.name == MAKE_VARIANT)).all()) == 1


def test_a_new_definition_is_another_task_and_another_object(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """No key holds other bytes than before: caches may keep the old object for ever."""
    image_id = upload(producer, settings)
    make(producer, settings, image_id)
    [old] = row_of(producer, image_id).variants
    redefined = VariantSpec.parse("card:32x64:cover")
    assert stored(row_of(producer, image_id), ask_for(row_of(producer, image_id), redefined)) is None
    make(producer, settings, image_id, redefined)
    image = row_of(producer, image_id)
    [new] = image.variants
    assert (new["width_px"], new["url"]) == (32, old["url"])
    assert variant_object_key(new) != variant_object_key(old)
    assert stored(image, ask_for(image, redefined)) == new
    # And back again: the first definition is made anew, at a third place.
    make(producer, settings, image_id)
    [again] = row_of(producer, image_id).variants
    assert len({variant_object_key(each) for each in (old, new, again)}) == 3


def test_objects_of_former_definitions_are_swept(
    producer: Producer, settings: Settings, environment: dict[str, str]
) -> None:
    image_id = upload(producer, settings)
    for size in ("64", "32", "48"):
        make(producer, settings, image_id, VariantSpec.parse(f"card:{size}"))
    sweep_the_night(environment)
    image = row_of(producer, image_id)
    assert keys_in(producer, settings) == {object_key(image), *map(variant_object_key, image.variants)}


def test_another_focal_point_makes_a_crop_anew_but_no_other_version(producer: Producer, settings: Settings) -> None:
    image_id, whole = upload(producer, settings), VariantSpec.parse("thumb:64")
    make(producer, settings, image_id)
    make(producer, settings, image_id, whole)
    with producer.database.begin() as session:
        session.get(DreamImage, image_id).focus = [0.1, 0.9]  # type: ignore[union-attr]
    image = row_of(producer, image_id)
    assert stored(image, ask_for(image, whole)) is not None
    assert stored(image, ask_for(image, CARD)) is None
    make(producer, settings, image_id)
    image = row_of(producer, image_id)
    assert stored(image, ask_for(image, CARD)) is not None


def test_an_upload_that_gives_a_focal_point_makes_its_crops_by_it(producer: Producer, settings: Settings) -> None:
    """The crops of an upload are made anew only when the point changes."""
    crops = settings.model_copy(update={"variants": (CARD,)})
    eager = Producer(crops, producer.connections)
    order = eager.order_upload(7, [{"name": "a.jpg", "data": noise(400, 200), "focus": [0.1, 0.2]}], delivery=NOT_SENT)
    eager.accept(order)
    run_recorded(crops, eager, order.task_id)
    with producer.database.read() as session:
        [image] = images.of_task(session, order.task_id)
    assert stored(image, ask_for(image, CARD)) is not None
    for focus in ([0.1, 0.3], None):
        with producer.database.begin() as session:
            changed = images.give_focus(session, 7, image.id, focus)
        assert changed is not None
        assert stored(changed, ask_for(changed, CARD)) is None


def test_a_focal_point_that_comes_back_has_its_crop(producer: Producer, settings: Settings) -> None:
    """The crop is made although the first task of that point ended while another point counted."""
    image_id = upload(producer, settings)
    make(producer, settings, image_id)

    def give(*focus: float) -> list[str]:
        with producer.database.begin() as session:
            image = images.give_focus(session, 7, image_id, list(focus))
            assert image is not None
            producer.accept_crops(image, session)
        with producer.database.read() as session:
            is_open = DreamTask.state == TaskState.QUEUED
            return list(session.scalars(select(DreamTask.id).where(DreamTask.name == MAKE_VARIANT, is_open)))

    [first] = give(0.1, 0.1)
    second = give(0.9, 0.9)
    assert run_recorded(settings, producer, first) is None
    for task_id in {*second, *give(0.1, 0.1)} - {first}:
        run_recorded(settings, producer, task_id)
    image = row_of(producer, image_id)
    assert stored(image, ask_for(image, CARD)) is not None
    assert set(producer.list_images(7)[0]["variants"][0]) == set(VariantRef.__annotations__)


def test_a_version_that_another_task_has_made_is_not_made_again(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    url = make(producer, settings, image_id)
    [made] = row_of(producer, image_id).variants
    producer.accept(Order("again", MAKE_VARIANT, [image_id, "card", CARD.recipe(None)], NOT_SENT))
    assert run_recorded(settings, producer, "again") == url
    assert row_of(producer, image_id).variants == [made]


def test_two_versions_at_once_lose_nothing(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    specs = [VariantSpec.parse(f"v{edge}:{edge}") for edge in range(40, 48)]
    task_ids = [order(producer, image_id, spec) for spec in specs]
    runs = [threading.Thread(target=run_recorded, args=(settings, producer, task_id)) for task_id in task_ids]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert {each["name"] for each in row_of(producer, image_id).variants} == {spec.name for spec in specs}


def test_a_picture_that_is_deleted_first_keeps_nothing(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    task_id = order(producer, image_id)
    with producer.database.begin() as session:
        images.mark_deleting(session, [image_id])
    before = keys_in(producer, settings)
    assert run_recorded(settings, producer, task_id) is None
    assert keys_in(producer, settings) == before
    assert row_of(producer, image_id).state is ImageState.DELETING


@pytest.mark.parametrize("is_remade", [False, True])
def test_a_picture_that_is_deleted_or_remade_during_the_run_gets_no_version(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_remade: bool
) -> None:
    """The object is taken back. For a remade picture, which has other pixels, another run follows."""
    image_id = upload(producer, settings)
    task_id = order(producer, image_id)
    put_file = producer.storage.put_file

    def put(*args: Any, **how: Any) -> None:
        put_file(*args, **how)
        with producer.database.begin() as session:
            if is_remade:
                session.get_one(DreamImage, image_id).remakes += 1
            else:
                images.mark_deleting(session, [image_id])

    before = keys_in(producer, settings)
    monkeypatch.setattr(producer.storage, "put_file", put)
    with pytest.raises(RunContinues) if is_remade else nullcontext():
        assert run_recorded(settings, producer, task_id) is None
    assert keys_in(producer, settings) == before
    assert row_of(producer, image_id).variants == []


def test_what_a_killed_run_stored_for_a_picture_that_was_deleted_since_is_removed(
    producer: Producer, settings: Settings
) -> None:
    """The deletion may have read the row before the run wrote into it."""
    image_id = upload(producer, settings)
    task_id = order(producer, image_id)
    image = row_of(producer, image_id)
    before = keys_in(producer, settings)
    place = variant_key(object_stem(image.storage_key, 3), "card", "jpg")
    producer.storage.put_bytes(settings.s3_bucket, place, b"half a run")
    with producer.database.begin() as session:
        session.get_one(DreamTask, task_id).result = {"place": 3}
        images.mark_deleting(session, [image_id])
    assert run_recorded(settings, producer, task_id) is None
    assert keys_in(producer, settings) == before


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_run_that_lost_its_task_deletes_only_what_nobody_can_need(
    producer: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    """The run that has the task now stores its object under the same key, and writes the row a moment later."""
    image_id = upload(producer, settings)
    task_id = order(producer, image_id)
    before = keys_in(producer, settings)
    put_file = producer.storage.put_file

    def put(*args: Any, **how: Any) -> None:
        put_file(*args, **how)
        with producer.database.begin() as session:
            session.get_one(DreamTask, task_id).lease_token = "another"
            if is_deleted:
                images.mark_deleting(session, [image_id])

    monkeypatch.setattr(producer.storage, "put_file", put)
    with pytest.raises(LeaseLost):
        run_recorded(settings, producer, task_id)
    assert len(keys_in(producer, settings) - before) == (0 if is_deleted else 1)


def test_the_picture_as_avif_is_kept_only_if_it_is_smaller(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    url = make(producer, settings, image_id, None, "avif")
    image = row_of(producer, image_id)
    [full] = image.variants
    assert (full["name"], full["url"], full["content_type"]) == ("full.avif", url, "image/avif")
    assert (full["width_px"], full["height_px"]) == (400, 200)
    assert full["size_bytes"] < (image.size_bytes or 0)
    with producer.database.begin() as session:
        tiny = session.get(DreamImage, image_id)
        assert tiny is not None
        tiny.size_bytes, tiny.variants, tiny.remakes = 10, [], 0
    task_id, args = task_of(image, ask_for(image, None, "webp"))
    producer.accept(Order(task_id, MAKE_VARIANT, args, NOT_SENT))
    assert run_recorded(settings, producer, task_id) is None
    assert row_of(producer, image_id).variants == []


def test_an_animation_keeps_moving(producer: Producer, settings: Settings, tmp_path: Path) -> None:
    """The picture itself is not replaced by a still; a browser that takes no WebP gets one."""
    frames = [Image.effect_noise((64, 64), spread) for spread in (20, 60)]
    path = tmp_path / "moves.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    image_id = upload(producer, settings, path.read_bytes())
    assert row_of(producer, image_id).content_type == "image/webp"
    rung = VariantSpec.rung(16)
    for spec in (None, rung):  # the rung is not stored: without the AVIF the animation answers
        assert make(producer, settings, image_id, spec, "avif") is None
        assert make(producer, settings, image_id, spec, "jpeg") is not None


def test_a_still_of_an_animation_whose_original_is_kept_gets_its_rungs_and_formats(
    producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    """`DREAM_OUTPUT_FORMAT=jpeg` has stored the first frame, so no motion can be lost."""
    frames = [Image.effect_noise((64, 64), spread) for spread in (20, 60)]
    path = tmp_path / "moves.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    image_id = upload(producer, settings, noise(400, 200))
    producer.storage.ensure_bucket("dream-originals")
    producer.storage.put_file("dream-originals", "originals/moves", path, "image/gif", is_public=False)
    with producer.database.begin() as session:
        image = session.get_one(DreamImage, image_id)
        image.original_bucket, image.original_key = "dream-originals", "originals/moves"
    assert make(producer, settings, image_id, VariantSpec.rung(16)) is not None
    assert make(producer, settings, image_id, VariantSpec.rung(16), "avif") is not None


def test_a_format_keeps_hdr_also_if_nobody_has_asked_for_its_variant_yet(
    producer: Producer, settings: Settings
) -> None:
    """Browsers that take AVIF got SDR for ever, if one of them was the first to ask."""
    image_id = upload(producer, settings, gain_maps.photo().file())
    hero = VariantSpec.parse("hero:800x")
    assert make(producer, settings, image_id, hero, "avif") is None
    assert make(producer, settings, image_id, hero) is not None


def test_a_picture_has_so_many_versions_at_most(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    few = settings.model_copy(update={"max_variants_per_picture": 1})
    make(producer, few, image_id)
    with pytest.raises(TooManyVariants, match="DREAM_MAX_VARIANTS_PER_PICTURE=1"):
        make(producer, few, image_id, VariantSpec.parse("thumb:64"))
    make(producer, few, image_id, VariantSpec.parse("card:20"))
    assert len(row_of(producer, image_id).variants) == 1


def test_a_version_that_cannot_be_made_fails_once(producer: Producer, settings: Settings) -> None:
    image_id = upload(producer, settings)
    image = row_of(producer, image_id)
    producer.storage.put_bytes(settings.s3_bucket, object_key(image), b"no picture")
    task_id = order(producer, image_id)
    with pytest.raises(ImageRejected):
        run_recorded(settings, producer, task_id)
    assert order(producer, image_id) == task_id
    with producer.database.read() as session:
        assert session.get(DreamTask, task_id).state is TaskState.FAILED  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "args",
    [
        ["1", "card", "64"],
        [1, "card", 64],
        [1, "card", "64:tiff"],
        [1, "card", "64x64:cover@2.000000,0.500000"],
        [1, "card.webp", "64:avif"],
        [1, "../up", "64"],
        [True, "card.", "64"],
    ],
)
def test_a_strangers_wrong_order_is_refused(producer: Producer, settings: Settings, args: list[Any]) -> None:
    producer.accept(Order("stranger's", MAKE_VARIANT, args, NOT_SENT))
    with pytest.raises(InvalidArguments):
        run_recorded(settings, producer, "stranger's")


def test_a_larger_version_answers_meanwhile(producer: Producer, settings: Settings) -> None:
    """The smallest of those that are as large; the picture itself if there is none."""
    image_id = upload(producer, settings)
    for edge in (50, 100, 200):
        make(producer, settings, image_id, VariantSpec.parse(f"v{edge}:{edge}"))
    image = row_of(producer, image_id)

    def answering(definition: str) -> str | None:
        found = larger(image, ask_for(image, VariantSpec.parse(f"x:{definition}")))
        return found["name"] if found else None

    assert [answering(each) for each in ("40", "60", "150", "300")] == ["v50", "v100", "v200", None]

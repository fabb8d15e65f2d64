"""Versions on demand in rows, on each database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from dream.db import Database, DreamImage, variants
from dream.errors import TooManyVariants
from dream.messages.pictures import StoredVariant
from dream.messages.states import ImageState
from dream.messages.variants import ask_for, made_as, stored, task_of
from dream.storage.keys import keys_of
from dream.variants import VariantSpec

STEM = "dreams/20260101/" + "0" * 32


@pytest.fixture
def image_id(database: Database) -> int:
    with database.begin() as session:
        image = DreamImage(dream_id=7, task_id="t", index=0, filename="a.jpg", storage_key=f"{STEM}.jpg")
        image.state, image.width_px, image.height_px, image.stored_bytes = ImageState.COMPLETED, 400, 300, 1000
        image.wanted_variants = [["thumb", 100]]
        image.variants = [version("thumb")]
        session.add(image)
        session.flush()
        return image.id


def version(name: str, size_bytes: int = 10, **more: str) -> StoredVariant:
    return {
        "name": name,
        "url": f"https://a.example/media/{STEM}_{name}.jpg",
        "width_px": 100,
        "height_px": 75,
        "size_bytes": size_bytes,
        "content_type": "image/jpeg",
        **more,  # type: ignore[typeddict-item]
    }


def locked(session: Session, image_id: int) -> DreamImage:
    image = variants.locked(session, image_id)
    assert image is not None
    return image


def test_versions_that_are_stored_at_once_are_all_there(database: Database, image_id: int) -> None:
    """Each in the row, each with a place of its own, all their bytes counted."""
    names = [f"v{number}" for number in range(8)]
    together, places = threading.Barrier(len(names)), []

    def run(name: str) -> None:
        together.wait()
        with database.begin() as session:
            places.append(
                variants.want(locked(session, image_id), "thumb.avif", spec("thumb:100"), 99, overwrites=False)
            )
        with database.begin() as session:
            variants.store(locked(session, image_id), version(name))

    runs = [threading.Thread(target=run, args=(name,)) for name in names]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    with database.read() as session:
        image = session.get_one(DreamImage, image_id)
    assert sorted(each["name"] for each in image.variants) == ["thumb", *names]
    assert sorted(places) == list(range(1, len(names) + 1))
    assert image.stored_bytes == 1000 + 10 * len(names)


def spec(text: str) -> VariantSpec:
    return VariantSpec.parse(text)


def test_every_place_is_one_that_a_deletion_knows(database: Database, image_id: int) -> None:
    with database.begin() as session:
        image = locked(session, image_id)
        assert variants.want(image, "card", spec("card:64"), 99, overwrites=False) == 0
        assert variants.want(image, "card.avif", spec("card:64"), 99, overwrites=False) == 1
        assert variants.want(image, "card", spec("card:32"), 99, overwrites=True) == 0
    with database.read() as session:
        assert {f"{STEM}_card.webp", f"{STEM}-1_card.avif"} <= set(keys_of(session.get_one(DreamImage, image_id)))


def test_a_changed_definition_does_not_change_the_recipe_of_what_is_stored(database: Database, image_id: int) -> None:
    """The stored version keeps the recipe of the old definition, so it does not answer for the new one."""
    with database.begin() as session:
        variants.want(locked(session, image_id), "thumb.avif", spec("thumb:80"), 99, overwrites=False)
    with database.read() as session:
        image = session.get_one(DreamImage, image_id)
    assert image.wanted_variants == [["thumb", 80]]
    assert made_as(image, image.variants[0]) == "100"
    assert stored(image, ask_for(image, spec("thumb:80"))) is None
    assert stored(image, ask_for(image, spec("thumb:100"))) == image.variants[0]


def test_the_task_of_a_version_is_another_after_each_change(database: Database, image_id: int) -> None:
    """A version that was made, replaced and is wanted again has a new task; without a change the task is the same."""
    with database.begin() as session:
        image = locked(session, image_id)
        card = spec("card:64x64:cover")

        def task_id() -> str:
            return task_of(image, ask_for(image, card))[0]

        ids = [task_id()]
        variants.store(image, version("card", made_as="64:cover", key="first"))
        image.focus = [0.5, 0.5]
        ids.append(task_id())
        variants.store(image, version("card", made_as=card.recipe([0.5, 0.5]), key="second"))
        image.focus = None
        ids.append(task_id())
        image.remakes += 1
        ids.append(task_id())
        # A remake in place keeps the number of remakes.
        image.made_at = datetime.now(UTC)
        ids.append(task_id())
        session.flush()
        session.refresh(image)
        assert ids[-1] == task_id()
    assert len(set(ids)) == 5
    assert all(each.startswith(f"variant-{image_id}-card-") for each in ids)


def test_a_version_replaces_the_one_of_its_name_and_counts_its_bytes(database: Database, image_id: int) -> None:
    with database.begin() as session:
        variants.store(locked(session, image_id), version("thumb", 25))
    with database.read() as session:
        image = session.get_one(DreamImage, image_id)
    assert [(each["name"], each["size_bytes"]) for each in image.variants] == [("thumb", 25)]
    assert image.stored_bytes == 1015


def test_the_limit_is_of_versions_that_are_there(database: Database, image_id: int) -> None:
    with database.begin() as session:
        image = locked(session, image_id)
        variants.want(image, "thumb", spec("thumb:80"), 1, overwrites=False)
        with pytest.raises(TooManyVariants):
            variants.want(image, "card", spec("card:80"), 1, overwrites=False)


@pytest.mark.parametrize("state", [ImageState.DELETING, ImageState.FAILED, ImageState.PENDING])
def test_only_a_stored_picture_has_versions(database: Database, image_id: int, state: ImageState) -> None:
    with database.begin() as session:
        other = DreamImage(dream_id=7, task_id="t", index=1, filename="b.jpg", storage_key="dreams/20260101/b")
        other.state = state
        session.add(other)
        session.flush()
        assert variants.locked(session, other.id) is None
        assert variants.locked(session, 10**6) is None
        assert variants.locked(session, image_id) is not None

"""Rows of remakes and of quotas, on every database: passes, numbers, old objects, and the bytes of a user."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from dream.db import Database, DreamImage, images, remakes
from dream.db.clock import now
from dream.db.remakes import Chosen
from dream.messages.states import ImageState
from dream.storage import new_key_stem
from dream.variants import VariantSpec


def add(database: Database, **columns: Any) -> int:
    """The id of a stored picture."""
    own = {"dream_id": 7, "task_id": "t", "index": 0, "filename": "a.jpg", "state": ImageState.COMPLETED, "bucket": "b"}
    with database.begin() as session:
        image = DreamImage(**{**own, "storage_key": f"{new_key_stem()}.jpg", **columns})
        session.add(image)
        session.flush()
        return image.id


def row(database: Database, image_id: int) -> DreamImage:
    with database.read() as session:
        return session.get_one(DreamImage, image_id)


def begin(database: Database, image_id: int, *variants: str) -> int | None:
    """The number that a run takes."""
    with database.begin() as session:
        image = remakes.begin(session, image_id, [VariantSpec.within(name, 64) for name in variants])
        return None if image is None else image.last_remake


def test_a_pass_keeps_its_beginning_until_it_ends(database: Database) -> None:
    with database.begin() as session:
        first, is_new = remakes.begin_pass(session, "remake:a")
    with database.begin() as session:
        assert (is_new, remakes.begin_pass(session, "remake:a")) == (True, (first, False))
        remakes.end_pass(session, "remake:a")
    with database.begin() as session:
        again, is_new = remakes.begin_pass(session, "remake:a")
    assert is_new
    assert again >= first


def test_pictures_are_done_once_their_objects_are_newer_than_the_pass(database: Database) -> None:
    old, other, pending = add(database), add(database, dream_id=8), add(database, state=ImageState.PENDING)
    with database.begin() as session:
        begun_at, _ = remakes.begin_pass(session, "remake:a")
        session.execute(update(DreamImage).values(made_at=now(-60)))
    chosen = Chosen(begun_at)

    def left(chosen: Chosen, after: int = 0) -> list[int]:
        with database.read() as session:
            found = list(remakes.page(session, chosen, after=after, limit=10))
            assert after or remakes.count(session, chosen) == len(found)
        return found

    assert left(chosen) == [old, other]
    assert left(chosen, after=old) == [other]
    assert left(Chosen(begun_at, dream_id=8)) == [other]
    assert left(Chosen(begun_at, older_than=begun_at - timedelta(hours=1))) == []
    with database.begin() as session:
        session.execute(update(DreamImage).where(DreamImage.id == old).values(made_at=now(1)))
    assert left(chosen) == [other]
    assert pending not in left(Chosen(begun_at + timedelta(days=1)))


def test_no_two_runs_have_the_same_number_and_their_variants_are_known(database: Database) -> None:
    image_id = add(database, wanted_variants=[["thumb", 320]])
    assert [begin(database, image_id, "thumb", "card"), begin(database, image_id)] == [1, 2]
    assert row(database, image_id).wanted_variants == [["thumb", 320], ["card", 64]]


@pytest.mark.parametrize("state", [each for each in ImageState if each is not ImageState.COMPLETED])
def test_a_picture_that_is_not_stored_gets_no_number(database: Database, state: ImageState) -> None:
    assert begin(database, add(database, state=state)) is None
    assert begin(database, 12_345) is None


def test_old_objects_wait_for_quiet_and_are_forgotten_only_if_no_run_came_between(database: Database) -> None:
    quiet, busy = add(database, last_remake=1, remakes=1), add(database, last_remake=1)
    add(database)

    def found(for_s: float) -> set[int]:
        with database.read() as session:
            return {image.id for image in remakes.outdated(session, for_s, 10)}

    assert found(60) == set()
    with database.begin() as session:
        session.execute(update(DreamImage).values(updated_at=now(-61)))
    assert found(60) == {quiet, busy}
    assert begin(database, busy) == 2
    with database.begin() as session:
        remakes.forget_old_objects(session, {quiet: 1, busy: 1})
    assert [row(database, each).first_remake for each in (quiet, busy)] == [1, 0]
    assert found(-60) == {busy}


def test_a_users_bytes_are_those_of_pictures_that_are_there_or_wait(database: Database) -> None:
    for state in ImageState:
        add(database, state=state, user_id=1, stored_bytes=10)
    add(database, user_id=2, stored_bytes=5)
    add(database, user_id=3, size_bytes=7, variants=[{"size_bytes": 2}, {"size_bytes": 1}])
    with database.begin() as session:
        assert [images.stored_by(session, user_id) for user_id in (1, 2, 3, 4)] == [40, 5, 0, 0]
        before = session.scalars(select(DreamImage.updated_at).order_by(DreamImage.id)).all()
        assert (images.measure(session, 10), images.measure(session, 10)) == (1, 0)
        assert images.stored_by(session, 3) == 10
        assert session.scalars(select(DreamImage.updated_at).order_by(DreamImage.id)).all() == before


def test_a_picture_that_fails_counts_no_more_and_counts_again_when_it_is_replayed(database: Database) -> None:
    add(database, state=ImageState.PROCESSING, user_id=1, stored_bytes=10, original_bytes=10)
    with database.begin() as session:
        images.move_task(session, "t", ImageState.PROCESSING, ImageState.FAILED, "why", "code")
        assert images.stored_by(session, 1) == 0
        images.move_task(session, "t", ImageState.FAILED, ImageState.PENDING)
        assert images.stored_by(session, 1) == 10

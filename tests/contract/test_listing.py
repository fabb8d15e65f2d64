"""A dream's pictures from Python: in the order of its text, whole or page by page; on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

import dream.pictures
from dream.db import Database, DreamImage, DreamTask
from dream.errors import DatabaseUnavailable, InvalidArguments
from dream.messages.pictures import ImageInfo
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.settings import Settings
from tests.this_process import configured

DREAM, OTHER = 7, 8
#: Many share a position, and a position may be negative.
POSITIONS = [5, 0, -3, 5, 2**31 - 1, 0, 0, -(2**31 - 1)]


@pytest.fixture
def producer(database: Database) -> Producer:
    """A dream of pictures in all states, and another dream's."""
    with database.begin() as session:
        session.add(DreamTask(id="task", name=PROCESS_IMAGES, args=[]))
        session.flush()
        states = [ImageState.COMPLETED, ImageState.PENDING, ImageState.FAILED, ImageState.PROCESSING]
        for index, position in enumerate(POSITIONS):
            session.add(image(index, position, states[index % 4]))
        session.add(image(98, 1, ImageState.DELETING))
        session.add(image(99, 1, ImageState.DELETED))
        session.add(image(100, 1, ImageState.COMPLETED, dream_id=OTHER))
    return Producer(Settings(), Connections(Settings(), database=database))


def image(index: int, position: int, state: ImageState, dream_id: int = DREAM) -> DreamImage:
    return DreamImage(
        dream_id=dream_id,
        task_id="task",
        index=index,
        position=position,
        filename=f"{index}.jpg",
        state=state,
        storage_key=f"dreams/20260101/{index:032x}.jpg",
        error="no picture" if state is ImageState.FAILED else None,
    )


def test_pictures_for_templates_are_the_same_list(producer: Producer, database: Database, is_pooled: bool) -> None:
    url = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    with configured({"DREAM_DATABASE_URL": url, "DREAM_DATABASE_PGBOUNCER": str(is_pooled)}):
        whole, page = dream.pictures.list(DREAM), dream.pictures.list(DREAM, limit=3)
        rest = dream.pictures.list(DREAM, cursor=page.next_cursor)
        with pytest.raises(InvalidArguments, match="limit must be"):
            dream.pictures.list(DREAM, limit=0)
    assert [each.id for each in whole] == [each["id"] for each in producer.list_images(DREAM)]
    assert {each.state for each in whole} == set(ImageState) - {ImageState.DELETING, ImageState.DELETED}
    assert [*page, *rest] == whole
    assert (len(page), rest.next_cursor) == (3, None)


def test_all_pictures_come_in_the_order_of_the_text(producer: Producer) -> None:
    """Pictures that are being deleted are not among them; each has every documented field and no other."""
    found = producer.list_images(DREAM)
    assert [each["position"] for each in found] == sorted(POSITIONS)
    assert [each["filename"] for each in found if each["position"] == 0] == ["1.jpg", "5.jpg", "6.jpg"]
    assert found.next_cursor is None
    assert {frozenset(each) for each in found} == {frozenset(get_type_hints(ImageInfo))}
    assert producer.list_images(999) == []


@pytest.mark.parametrize("states", [None, ["failed"], ["pending", "processing"], ["completed", "failed"]])
@pytest.mark.parametrize("order", ["position", "newest"])
def test_each_order_and_each_state_has_its_pages(producer: Producer, order: str, states: list[str] | None) -> None:
    whole = producer.list_images(DREAM, order=order, states=states)
    assert {each["state"] for each in whole} == set(states or ["pending", "processing", "completed", "failed"])
    ids = [each["id"] for each in whole]
    if order == "newest":
        assert ids == sorted(ids, reverse=True)
    else:
        assert ids == [each["id"] for each in producer.list_images(DREAM) if each["id"] in ids]
    pages = [producer.list_images(DREAM, limit=1, order=order, states=states)]
    while cursor := pages[-1].next_cursor:
        pages.append(producer.list_images(DREAM, limit=1, cursor=cursor, order=order, states=states))
    assert [each["id"] for page in pages for each in page] == ids


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"order": "oldest"}, "order must be one of position, newest, not 'oldest'"),
        ({"states": ["deleted"]}, "state must be some of pending, processing, completed, failed, not 'deleted'"),
        ({"states": []}, "state must be some of pending, processing, completed, failed, not ''"),
        ({"cursor": "newest.5"}, "cursor is of a list in the order newest, not position; keep the order"),
        ({"cursor": "0.5", "order": "newest"}, "cursor is of a list in the order position, not newest; keep the order"),
    ],
)
def test_a_wrong_order_state_or_cursor_is_one_clear_error(producer: Producer, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArguments, match=reason):
        producer.list_images(DREAM, **how)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, 2**31 - 1])
def test_pages_are_the_whole(producer: Producer, limit: int) -> None:
    """No picture is missed or comes twice, and the last page says that it is the last."""
    pages, cursor = [producer.list_images(DREAM, limit=limit)], None
    while cursor := pages[-1].next_cursor:
        pages.append(producer.list_images(DREAM, limit=limit, cursor=cursor))
    assert [each for page in pages for each in page] == producer.list_images(DREAM)
    assert [len(page) for page in pages] == [min(limit, 8 - start) for start in range(0, 8, limit)]


def test_a_page_begins_where_the_last_one_ended_though_its_last_picture_went(producer: Producer) -> None:
    page = producer.list_images(DREAM, limit=3)
    assert page.next_cursor
    producer.delete_images(DREAM, [{"id": each["id"]} for each in page], "")
    assert producer.list_images(DREAM, cursor=page.next_cursor) == producer.list_images(DREAM)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"limit": 0}, "limit must be a positive integer, not 0"),
        ({"limit": -1}, "limit must be a positive integer, not -1"),
        ({"limit": True}, "limit must be a positive integer, not True"),
        ({"limit": "3"}, "limit must be a positive integer, not '3'"),
        ({"limit": 2**31}, "limit must be a positive integer, not 2147483648"),
        *[
            ({"cursor": cursor}, f"cursor must be the next_cursor of an earlier list, not {cursor!r}")
            for cursor in (
                "",
                "3",
                "3.",
                ".3",
                "a.b",
                "1.2.3",
                "--1.2",
                "1.-2",
                "9" * 30 + ".1",
                "1." + "9" * 19,
                "٣.٣",
                3,
            )
        ],
    ],
)
def test_a_wrong_page_is_one_clear_error(producer: Producer, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        producer.list_images(DREAM, **how)
    assert str(caught.value) == reason


@pytest.mark.parametrize("dream_id", [0, -1, "7", None, True, 2**63])
def test_a_dream_is_a_positive_integer(producer: Producer, dream_id: Any) -> None:
    with pytest.raises(InvalidArguments, match="dream_id must be a positive integer"):
        producer.list_images(dream_id)


def test_a_database_without_tables_is_said(tmp_path: Path) -> None:
    producer = Producer(Settings(database_url=f"sqlite:///{tmp_path}/bare.db"))
    with pytest.raises(DatabaseUnavailable, match="run `dream migrate`"):
        producer.list_images(DREAM)
    producer.database.dispose()

"""Changes of pictures over REST: new positions, and another attempt for a failed one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

import dream.pictures
from dream.db import DreamImage, DreamTask
from dream.errors import InvalidArguments, RetryRefused
from dream.messages.states import ImageState, TaskState
from dream.storage import StagingArea, Storage
from tests.gateway import DREAM, OTHER_DREAM, STRANGER, Gateway, auth, receive, token
from tests.this_process import configured

ADDRESS = f"/api/dreams/{DREAM}/images"


def positions(gateway: Gateway) -> dict[int, int]:
    return {each["id"]: each["position"] for each in gateway.http.get(ADDRESS, headers=auth()).json()}


def move(gateway: Gateway, *wanted: tuple[Any, Any], **how: Any) -> Any:
    body = {"positions": [{"id": image_id, "position": position} for image_id, position in wanted]}
    return gateway.http.patch(ADDRESS, json=body, headers=auth(), **how)


# --- order


def test_pictures_get_new_positions_and_open_pages_follow(gateway: Gateway) -> None:
    """The event names the stored ones, without a task; a waiting picture moves too."""
    first, second = (gateway.add_image(number=number) for number in (1, 2))
    waiting = gateway.add_image(ImageState.PENDING, number=3)
    with gateway.watching() as page:
        answer = move(gateway, (first, 30), (second, -(2**31) + 1), (waiting, 7))
        assert answer.status_code == 200, answer.text
        event = receive(page)
    assert positions(gateway) == {second: -(2**31) + 1, waiting: 7, first: 30}
    assert (event["type"], event["status"], "task_id" in event) == ("image_update", "completed", False)
    assert {each["id"]: each["position"] for each in event["images"]} == {first: 30, second: -(2**31) + 1}
    assert all(each["url"] for each in event["images"])


def test_all_pictures_move_or_none(gateway: Gateway) -> None:
    """None where one belongs to another dream, is being deleted, or never was."""
    own, other = gateway.add_image(number=1), gateway.add_image(number=2, dream_id=OTHER_DREAM)
    gone = gateway.add_image(ImageState.DELETING, number=3)
    for image_id in (other, gone, 999_999):
        answer = move(gateway, (own, 5), (image_id, 6))
        assert (answer.status_code, answer.json()["code"]) == (404, "image_not_found")
        assert str(image_id) in answer.json()["error"]
    assert positions(gateway) == {own: 1}


def test_a_thousand_pictures_move_at_once(gateway: Gateway) -> None:
    with gateway.database.begin() as session:
        for number in range(1000):
            key = f"dreams/20260101/{number:032x}.jpg"
            image = DreamImage(dream_id=DREAM, task_id="t", index=number, filename="a.jpg", storage_key=key)
            image.state, image.url, image.bucket = ImageState.COMPLETED, f"http://x/media/{key}", "x"
            session.add(image)
    ids = sorted(positions(gateway))
    assert move(gateway, *((image_id, 1000 - place) for place, image_id in enumerate(ids))).status_code == 200
    assert list(positions(gateway)) == ids[::-1]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "positions"),
        (b'{"positions": []}', "positions"),
        (b'{"positions": [{"id": 1}]}', "positions[0].position"),
        (b'{"positions": [{"id": "1", "position": 2}]}', "positions[0].id"),
        (b'{"positions": [{"id": 1, "position": true}]}', "positions[0].position"),
        (b'{"positions": [{"id": 1, "position": 1.5}]}', "positions[0].position"),
        (b'{"positions": [{"id": 1, "position": 2147483648}]}', "positions[0].position"),
        (b'{"positions": [{"id": 0, "position": 1}]}', "positions[0].id"),
        (b'{"positions": [{"id": 1, "position": 1, "x": 1}]}', "positions[0].x"),
        (b'{"positions": [{"id": 1, "position": 1}, {"id": 1, "position": 2}]}', "twice"),
        (b'{"positions": [' + b'{"id": 1, "position": 1},' * 1000 + b'{"id": 1, "position": 1}]}', "1000"),
    ],
)
def test_a_wrong_body_is_one_clear_400(gateway: Gateway, body: bytes, place: str) -> None:
    answer = gateway.http.patch(ADDRESS, content=body, headers=auth())
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")
    assert place in answer.json()["error"]


# --- another attempt


def failed(gateway: Gateway, number: int, task: TaskState, *, is_staged: bool = True) -> int:
    """A failed picture of a task that has ended so."""
    image_id = gateway.add_image(ImageState.FAILED, number=number)
    staged = StagingArea(gateway.settings, Storage(gateway.settings)).put(b"bytes")
    with gateway.database.begin() as session:
        image = session.get_one(DreamImage, image_id)
        image.staging_key = staged if is_staged else staged[:-4] + "0000"
        row = session.get_one(DreamTask, image.task_id)
        row.state, row.args = task, [DREAM, [{"name": "a.jpg", "staged": staged}], [0]]
    return image_id


def retry(gateway: Gateway, image_id: int, *, dream_id: int = DREAM, user: int | None = None) -> Any:
    headers = auth() if user is None else auth(token(user))
    return gateway.http.post(f"/api/dreams/{dream_id}/images/{image_id}/retry", headers=headers)


@pytest.mark.parametrize("ended", [TaskState.FAILED, TaskState.SUCCEEDED])
def test_a_failed_picture_is_processed_again(gateway: Gateway, ended: TaskState) -> None:
    """A task that was announced speaks again; a second call changes nothing."""
    image_id = failed(gateway, 1, ended)
    with gateway.watching() as page:
        for _ in range(2):
            answer = retry(gateway, image_id)
            assert answer.status_code == 202, answer.text
            assert answer.json() == {"task_id": "task1", "dream_id": DREAM, "id": image_id}
        event = receive(page)
    assert (event["status"], event["task_id"]) == ("processing", "task1")
    assert event["steps"] == [{"id": image_id, "name": "1.jpg", "position": 1, "step": "staged"}]
    with gateway.database.read() as session:
        assert session.get_one(DreamImage, image_id).state is ImageState.PENDING
        assert session.get_one(DreamTask, "task1").state is TaskState.QUEUED


def test_only_a_failed_picture_whose_file_is_there_is_processed_again(gateway: Gateway) -> None:
    stored, gone = gateway.add_image(number=1), failed(gateway, 2, TaskState.FAILED, is_staged=False)
    revoked, running = failed(gateway, 3, TaskState.REVOKED), failed(gateway, 4, TaskState.RUNNING)
    codes = {stored: "image_not_failed", gone: "upload_gone", revoked: "upload_gone", running: "upload_in_work"}
    for image_id, code in codes.items():
        answer = retry(gateway, image_id)
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert retry(gateway, 999_999).json()["code"] == "image_not_found"
    assert retry(gateway, gone, dream_id=OTHER_DREAM, user=STRANGER).json()["code"] == "image_not_found"
    with gateway.database.begin() as session:
        session.execute(update(DreamImage).where(DreamImage.id == gone).values(state=ImageState.DELETED))
    assert retry(gateway, gone).status_code == 404


# --- from Python


def test_python_reorders_and_retries_as_rest_does(gateway: Gateway, environment: dict[str, str]) -> None:
    own, broken = gateway.add_image(number=1), failed(gateway, 2, TaskState.FAILED)
    url = str(gateway.settings.database_url)
    with configured({**environment, "DREAM_DATABASE_URL": url, "DREAM_S3_BUCKET": gateway.settings.s3_bucket}):
        assert dream.pictures.reorder(DREAM, {own: 9, broken: 8})
        assert not dream.pictures.reorder(DREAM, {own: 1, 999_999: 2})
        with pytest.raises(InvalidArguments, match="positions"):
            dream.pictures.reorder(DREAM, {own: True})
        assert dream.pictures.retry(DREAM, broken) == "task2"
        assert dream.pictures.retry(DREAM, 999_999) is None
        with pytest.raises(RetryRefused, match="has not failed"):
            dream.pictures.retry(DREAM, own)
    assert positions(gateway) == {own: 9, broken: 8}

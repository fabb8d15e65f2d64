"""Focal points over REST: of an upload's files, and of a stored picture."""

from __future__ import annotations

from typing import Any

import pytest

from dream.messages.states import ImageState
from tests.gateway import DREAM, OTHER_DREAM, STRANGER, Gateway, auth, token


def listed(gateway: Gateway) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    return pictures


def put(gateway: Gateway, image_id: int, *, dream_id: int = DREAM, user: int | None = None, **body: Any) -> Any:
    headers = auth() if user is None else auth(token(user))
    return gateway.http.put(f"/api/dreams/{dream_id}/images/{image_id}/focus", headers=headers, **body)


def test_an_upload_may_have_a_focal_point_for_each_file(gateway: Gateway) -> None:
    files = [("files", ("a.jpg", b"one")), ("files", ("b.jpg", b"two"))]
    form = {"focus": ["0.25,0.75", ""]}
    answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, data=form, headers=auth())
    assert answer.status_code == 202, answer.text
    assert [image["focus"] for image in listed(gateway)] == [[0.25, 0.75], None]


@pytest.mark.parametrize("focus", ["0.5", "0.5,0.5,0.5", "2,0", "nan,0", "[0.5, 0.5]", "[[0, 0]]", "x"])
def test_a_wrong_focal_point_leaves_nothing(gateway: Gateway, focus: str) -> None:
    files = [("files", ("a.jpg", b"one")), ("files", ("b.jpg", b"two"))]
    answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, data={"focus": focus}, headers=auth())
    assert answer.status_code == 400
    assert "focus" in answer.json()["error"] or "focal point" in answer.json()["error"]
    assert listed(gateway) == []


@pytest.mark.parametrize("state", [ImageState.PENDING, ImageState.PROCESSING, ImageState.COMPLETED, ImageState.FAILED])
def test_the_owner_gives_a_point_changes_it_and_takes_it_back(gateway: Gateway, state: ImageState) -> None:
    image_id, other_id = gateway.add_image(state), gateway.add_image(number=1)
    for focus, expected in (([0, 1], [0, 1]), ([1 / 3, 0.5], [0.3333, 0.5]), (None, None)):
        answer = put(gateway, image_id, json={"focus": focus})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"dream_id": DREAM, "id": image_id, "focus": expected, "found_focus": None}
        shown = {image["id"]: image["focus"] for image in listed(gateway)}
        assert shown == {image_id: expected, other_id: None}


@pytest.mark.parametrize(
    "body",
    [
        *({"json": body} for body in ([0, 0], None, {}, {"focus": [0]}, {"focus": [0, 2]}, {"focus": "0,0"})),
        *({"json": {"focus": [0.5, 0.5], "more": 1}}, {"json": {"focus": [True, 0]}}, {"json": {"focus": {}}}),
        *({"content": text} for text in (b"", b"x", b'{"focus": [NaN, 0]}', b'{"focus": [1e999, 0]}', b"[" * 1000)),
        {"content": b'{"focus": [' + b"9" * 900 + b", 0]}"},
    ],
    ids=str,
)
def test_a_wrong_body_is_refused_and_changes_nothing(gateway: Gateway, body: dict[str, Any]) -> None:
    image_id = gateway.add_image()
    assert put(gateway, image_id, json={"focus": [0.1, 0.2]}).status_code == 200
    answer = put(gateway, image_id, **body)
    assert answer.status_code == 400, answer.text
    assert "focus" in answer.json()["error"]
    assert listed(gateway)[0]["focus"] == [0.1, 0.2]


def test_a_long_body_is_not_read(gateway: Gateway) -> None:
    answer = put(gateway, gateway.add_image(), content=b" " * 5000)
    assert answer.status_code == 413


def test_a_picture_that_is_gone_or_anothers_has_no_focal_point(gateway: Gateway) -> None:
    here, there = gateway.add_image(), gateway.add_image(number=1, dream_id=OTHER_DREAM)
    gone = gateway.add_image(ImageState.DELETING, number=2)
    for image_id in (there, gone, 0, 10**19 - 1, 999):
        assert put(gateway, image_id, json={"focus": [0, 0]}).status_code == 404
    assert put(gateway, here, user=STRANGER, json={"focus": [0, 0]}).status_code == 403
    assert gateway.http.put(f"/api/dreams/{DREAM}/images/{here}/focus", json={"focus": None}).status_code == 401
    assert listed(gateway)[0]["focus"] is None

"""An uploaded file as it came, over HTTP: for the owner of its dream alone, and never shown by a browser."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from dream.db import DreamImage
from dream.messages.states import ImageState
from dream.storage import Storage
from dream.storage.keys import new_original_key
from tests.conftest import wait_for
from tests.gateway import DREAM, OTHER_DREAM, STRANGER, Gateway, auth, token

HTML = b"<script>alert(1)</script>" * 10_000
NAME = "päge.html"


def add_original(gateway: Gateway, state: ImageState = ImageState.COMPLETED, *, data: bytes = HTML) -> str:
    """The path of the original of a picture that a worker has stored."""
    image_id, bucket, key = gateway.add_image(state), gateway.settings.s3_bucket, new_original_key()
    Storage(gateway.settings).put_bytes(bucket, key, data)
    with gateway.database.begin() as session:
        place = {"original_bucket": bucket, "original_key": key, "original_bytes": len(data), "filename": NAME}
        session.execute(update(DreamImage).where(DreamImage.id == image_id).values(**place))
    return f"/api/dreams/{DREAM}/images/{image_id}/original"


def test_its_owner_is_led_to_it(gateway: Gateway) -> None:
    path = add_original(gateway)
    answer = gateway.http.get(path, headers=auth())
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "private, no-store")
    found = httpx.get(answer.headers["location"])
    assert found.content == HTML
    check_private(found)


def check_private(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (
        answer.headers["content-disposition"] == "attachment; filename=\"p_ge.html\"; filename*=UTF-8''p%C3%A4ge.html"
    )
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("mode", ["accel", "proxy"])
def test_where_no_browser_reaches_the_store_the_gateway_sends_it(start: Callable[..., Gateway], mode: str) -> None:
    with start(media_mode=mode) as gateway:
        path = add_original(gateway)
        answer = gateway.http.get(path, headers=auth())
        assert (answer.status_code, answer.content) == (200, HTML)
        check_private(answer)
        assert answer.headers["x-content-type-options"] == "nosniff"
        gateway.database.dispose()
        with gateway.database.read() as session:
            (image,) = session.query(DreamImage).all()
        Storage(gateway.settings).delete(image.original_bucket or "", [image.original_key or ""])
        assert gateway.http.get(path, headers=auth()).status_code == 404


def test_a_client_that_goes_away_frees_its_connection_to_the_store(start: Callable[..., Gateway]) -> None:
    with start(media_mode="proxy") as gateway:
        path = add_original(gateway, data=HTML * 50)
        assert gateway.http.get(path, headers=auth()).content == HTML * 50
        before = sockets(gateway)
        with ExitStack() as stack:
            for _ in range(10):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
                bearer = auth()["Authorization"]
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n".encode())
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
            assert sockets(gateway) >= before + 15
        wait_for(lambda: sockets(gateway) <= before + 1, what="the end of the connections")


def sockets(gateway: Gateway) -> int:
    """The open sockets of the gateway's process."""
    count = 0
    for path in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        with suppress(OSError):
            count += path.readlink().name.startswith("socket:")
    return count


def test_a_head_has_name_and_size_without_a_question_to_the_store(gateway: Gateway) -> None:
    """A redirect would lead to a URL that is signed for a GET."""
    answer = gateway.http.head(add_original(gateway), headers=auth())
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(HTML)))
    check_private(answer)


def test_nobody_else_gets_it(gateway: Gateway) -> None:
    path = add_original(gateway)
    assert gateway.http.get(path).status_code == 401
    assert gateway.http.get(path, headers=auth(token(STRANGER))).status_code == 403
    own = path.replace(f"/{DREAM}/", f"/{OTHER_DREAM}/", 1)
    assert gateway.http.get(own, headers=auth(token(STRANGER))).status_code == 404


@pytest.mark.parametrize("state", [each for each in ImageState if each is not ImageState.COMPLETED])
def test_there_is_none_of_a_picture_that_is_not_stored(gateway: Gateway, state: ImageState) -> None:
    assert gateway.http.get(add_original(gateway, state), headers=auth()).status_code == 404


def test_there_is_none_if_it_was_not_kept(gateway: Gateway) -> None:
    image_id = gateway.add_image()
    for path in (image_id, image_id + 1, 2**62):
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images/{path}/original", headers=auth())
        assert (answer.status_code, "original" in answer.json()["error"]) == (404, True)


def test_a_user_whose_space_is_full_is_refused_before_the_bytes_are_sent(start: Callable[..., Gateway]) -> None:
    """413 with a code of its own, also for a file that alone is too much."""
    with start(max_stored_bytes_per_user="1000") as gateway:
        send = {"files": [("files", ("a.jpg", b"x" * 1001))]}
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", headers=auth(), **send)
        assert (answer.status_code, answer.json()["code"]) == (413, "quota_exceeded")
        image_id = gateway.add_image()
        with gateway.database.begin() as session:
            session.execute(update(DreamImage).where(DreamImage.id == image_id).values(stored_bytes=1000, user_id=11))
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", headers=auth(), files=[("files", ("a", b"x"))])
        assert (answer.status_code, answer.json()["code"]) == (413, "quota_exceeded")
        assert "1000 bytes of 1000 bytes" in answer.json()["error"]

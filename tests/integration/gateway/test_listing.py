"""The list of a dream's pictures: whole, or page by page, and what is said to a request that asks for neither."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from dream.db import DreamImage, DreamTask
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState
from tests.conftest import wait_for
from tests.gateway import DREAM, OTHER_DREAM, STRANGER, Gateway, auth, closing_code, receive, token

ADDRESS = f"/api/dreams/{DREAM}/images"


def add(gateway: Gateway, count: int, *, tasks: int = 1, position_of: Callable[[int], int] = lambda _: 0) -> None:
    """Finished pictures, as a worker leaves them."""
    with gateway.database.begin() as session:
        for task in range(tasks):
            session.add(DreamTask(id=f"t{task}", name=PROCESS_IMAGES, args=[]))
        session.flush()
        for number in range(count):
            key = f"dreams/20260101/{number:032x}.jpg"
            image = DreamImage(dream_id=DREAM, task_id=f"t{number % tasks}", index=number, filename=f"ä {number}.jpg")
            image.position, image.state, image.storage_key = position_of(number), ImageState.COMPLETED, key
            image.url, image.size_bytes, image.width_px, image.height_px = f"http://x/media/{key}", 5, 6, 7
            image.content_type, image.placeholder, image.dominant_colour = "image/jpeg", "x" * 28, "#aabbcc"
            session.add(image)


def pages(gateway: Gateway, query: str) -> list[list[dict[str, Any]]]:
    """Follow the Link headers."""
    found, address = [], f"{gateway.http.base_url}{ADDRESS}{query}"
    while address:
        answer = gateway.http.get(address, headers=auth())
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        address = urljoin(address, answer.links["next"]["url"]) if "next" in answer.links else ""
    return found


@pytest.mark.parametrize("limit", [1, 7, 30, 1000])
def test_pages_together_are_the_whole_list(gateway: Gateway, limit: int) -> None:
    """In the order of the text, each picture once, also where many share a position or it is negative."""
    add(gateway, 30, position_of=lambda number: (number * 7) % 5 - 2)
    whole = gateway.http.get(ADDRESS, headers=auth())
    assert "link" not in whole.headers
    assert [(image["position"], image["id"]) for image in whole.json()] == sorted(
        (image["position"], image["id"]) for image in whole.json()
    )
    found = pages(gateway, f"?limit={limit}")
    assert [image for page in found for image in page] == whole.json()
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert found[-1]


def test_a_large_list_is_whole_and_an_empty_one_is_empty(gateway: Gateway) -> None:
    """More than the gateway reads at a time, and none at all."""
    assert gateway.http.get(ADDRESS, headers=auth()).json() == []
    assert pages(gateway, "?limit=5") == [[]]
    add(gateway, 1001)
    whole = gateway.http.get(ADDRESS, headers=auth())
    assert whole.headers["content-type"] == "application/json"
    assert [image["filename"] for image in whole.json()] == [f"ä {number}.jpg" for number in range(1001)]
    assert set(whole.json()[0]) == {
        "id", "url", "position", "state", "status", "filename", "width_px", "height_px", "size_bytes", "content_type",
        "placeholder", "dominant_colour", "found_focus", "focus", "variants", "srcset", "error", "error_code",
        "duplicate_of", "task_id",
    }  # fmt: skip
    assert [len(page) for page in pages(gateway, "?limit=1000")] == [1000, 1]


def test_the_newest_come_first_and_states_are_chosen(gateway: Gateway) -> None:
    """The `Link` header keeps the order, the states and the upload of its list."""
    add(gateway, 6, tasks=2)
    failed = [gateway.add_image(ImageState.FAILED, number=number) for number in (100, 101)]
    whole = [image["id"] for image in pages(gateway, "?order=newest")[0]]
    assert whole == sorted(whole, reverse=True)
    assert whole[:2] == failed[::-1]
    found = pages(gateway, "?order=newest&state=completed&task_id=t1&limit=2")
    assert [[image["filename"] for image in page] for page in found] == [["ä 5.jpg", "ä 3.jpg"], ["ä 1.jpg"]]
    assert [image["id"] for image in pages(gateway, "?state=failed,processing")[0]] == failed
    cursor = gateway.http.get(f"{ADDRESS}?order=newest&limit=2", headers=auth()).links["next"]["url"]
    mixed = gateway.http.get(cursor.replace("order=newest", "order=position"), headers=auth())
    assert (mixed.status_code, mixed.json()["code"]) == (400, "query_invalid")
    assert "of a list in the order newest" in mixed.json()["error"]


def test_what_comes_and_goes_between_two_pages_shifts_nothing(gateway: Gateway) -> None:
    add(gateway, 6)
    first = gateway.http.get(f"{ADDRESS}?limit=3", headers=auth())
    with gateway.database.begin() as session:
        row = session.get(DreamImage, first.json()[0]["id"])
        assert row is not None
        row.state = ImageState.DELETING
    rest = gateway.http.get(first.links["next"]["url"], headers=auth())
    assert [image["filename"] for image in rest.json()] == ["ä 3.jpg", "ä 4.jpg", "ä 5.jpg"]


def test_a_list_says_when_a_picture_is_tried_again(gateway: Gateway) -> None:
    """A page that has just loaded shows it, too; a picture that waits for its first run has no `retry`."""
    waiting = gateway.add_image(ImageState.PENDING, number=1)
    gateway.add_image(ImageState.PENDING, number=2)
    due_at = datetime(2030, 1, 1, tzinfo=UTC)
    with gateway.database.begin() as session:
        task = session.get_one(DreamTask, "task1")
        task.attempts, task.due_at = 2, due_at
    listed = {each["id"]: each.get("retry") for each in gateway.http.get(ADDRESS, headers=auth()).json()}
    expected = {"attempt": 2, "max_retries": gateway.settings.max_retries, "retry_at": due_at.timestamp()}
    assert listed.pop(waiting) == expected
    assert list(listed.values()) == [None]


def test_the_pictures_of_one_upload_can_be_asked_for(gateway: Gateway) -> None:
    add(gateway, 10, tasks=3)
    for query in ("?task_id=t1", "?task_id=t1&limit=2"):
        found = [image for page in pages(gateway, query) for image in page]
        assert [image["filename"] for image in found] == ["ä 1.jpg", "ä 4.jpg", "ä 7.jpg"]
    assert pages(gateway, "?task_id=unknown") == [[]]


@pytest.mark.parametrize(
    "query",
    [
        *(f"limit={value}" for value in ("0", "-1", "1001", "x", "", "1.5", "1e2", "٣", "%00", "9" * 5000, " 5")),
        *(
            f"cursor={value}"
            for value in ("", "x", "5", "1.x", "1.2.3", f"0.{2**63}", f"{2**31}.1", "9" * 5000, "%00", "%ff", "-.-")
        ),
        *(f"order={value}" for value in ("", "oldest", "newest,position")),
        *(f"state={value}" for value in ("", "deleted", "failed,", "failed;pending", "FAILED")),
        *(f"task_id={value}" for value in ("", "%00", "%ed%a0%80", "a b", "x" * 5000)),
    ],
)
def test_a_wrong_query_is_one_clear_400(gateway: Gateway, query: str) -> None:
    answer = gateway.http.get(f"{ADDRESS}?{query}", headers=auth())
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.partition("=")[0])


def test_a_user_who_asks_without_a_pause_gets_429(start: Callable[..., Gateway]) -> None:
    """With the time after which one may ask again; another user is served meanwhile."""
    with start(max_requests_per_user_s="1") as gateway:

        def refused(method: str, address: str) -> httpx.Response | None:
            answer = gateway.http.request(method, address, headers=auth())
            return answer if answer.status_code == 429 else None

        assert gateway.http.get(ADDRESS, headers=auth()).status_code == 200
        answer = wait_for(lambda: refused("GET", ADDRESS), 60, "a refusal")
        assert answer is not None
        assert int(answer.headers["retry-after"]) >= 1
        assert "requests a second" in answer.json()["error"]
        for address, method in ((f"{ADDRESS}/1", "DELETE"), ("/api/auth/logout", "POST"), (ADDRESS, "POST")):
            wait_for(lambda how=(method, address): refused(*how), 60, f"a refusal of {method} {address}")
        other = gateway.http.get(f"/api/dreams/{OTHER_DREAM}/images", headers=auth(token(STRANGER)))
        assert other.status_code == 200


def test_too_many_status_requests_close_with_4008(start: Callable[..., Gateway]) -> None:
    """They are counted over all sockets of a user, `authenticate` among them."""
    with start(max_status_requests_per_user_s="1") as gateway, gateway.watching() as one, gateway.watching() as other:
        for _ in range(2):
            one.send('{"type": "request_status"}')
            assert receive(one)["type"] == "image_update"
            other.send(f'{{"type": "authenticate", "token": "{token()}"}}')
            assert receive(other)["type"] == "connection_established"
        for _ in range(10):
            try:
                one.send('{"type": "request_status"}')
            except ConnectionClosed:
                break
        assert closing_code(one) == 4008
        assert "request_status" in (one.close_reason or "")


def test_a_user_has_so_many_sockets(start: Callable[..., Gateway]) -> None:
    with start(max_sockets_per_user="2") as gateway, gateway.watching():
        with gateway.watching(), gateway.socket(f"?token={token()}") as third:
            assert closing_code(third) == 1013
            assert "2 sockets" in (third.close_reason or "")
            with gateway.socket(f"?token={token(STRANGER)}", dream_id=OTHER_DREAM) as other:
                assert receive(other)["type"] == "connection_established"
        with gateway.watching() as again:
            assert again.ping().wait(10)


@pytest.mark.slow
def test_who_asks_without_a_pause_holds_up_nobody(start: Callable[..., Gateway]) -> None:
    """20 sockets and 5 clients of one user ask for 2,000 pictures over and over; another's list takes what it took."""
    with start() as gateway:
        add(gateway, 2000)
        is_over = threading.Event()

        def took_s() -> float:
            began = time.monotonic()
            answer = httpx.get(
                f"{gateway.http.base_url}/api/dreams/{OTHER_DREAM}/images", headers=auth(token(STRANGER)), timeout=30
            )
            assert answer.status_code == 200
            return time.monotonic() - began

        def ask_by_socket() -> None:
            while not is_over.is_set():
                try:
                    with gateway.socket(f"?token={token()}", max_size=None) as websocket:
                        while not is_over.is_set():
                            websocket.send('{"type": "request_status"}')
                            websocket.recv(timeout=30)
                except (ConnectionClosed, OSError, TimeoutError):
                    continue

        def ask_by_http() -> None:
            with httpx.Client(base_url=gateway.http.base_url, timeout=30) as client:
                while not is_over.is_set():
                    client.get(ADDRESS, headers=auth())

        quiet_s = sorted(took_s() for _ in range(21))[10]
        threads = [threading.Thread(target=ask_by_socket) for _ in range(20)]
        threads += [threading.Thread(target=ask_by_http) for _ in range(5)]
        for thread in threads:
            thread.start()
        try:
            took_s()
            asked_s = sorted(took_s() for _ in range(21))[10]
        finally:
            is_over.set()
            for thread in threads:
                thread.join(60)
        print(f"quiet {quiet_s:.3f} s, asked without a pause {asked_s:.3f} s")  # noqa: T201
        assert asked_s < 0.3 + 5 * quiet_s


def test_a_snapshot_says_the_steps_of_unfinished_pictures_and_the_next_retry(gateway: Gateway) -> None:
    """A page that has just loaded shows them, too. Stored pictures are in `images` alone."""
    waiting = gateway.add_image(ImageState.PENDING, number=1)
    in_work = gateway.add_image(ImageState.PROCESSING, number=2)
    failed = gateway.add_image(ImageState.FAILED, number=3)
    gateway.add_image(number=4)
    due_at = datetime(2030, 1, 1, tzinfo=UTC)
    with gateway.database.begin() as session:
        task = session.get_one(DreamTask, "task1")
        task.attempts, task.due_at = 2, due_at
    with gateway.watching() as websocket:
        websocket.send('{"type": "request_status"}')
        answer = receive(websocket)
    steps = [(each["id"], each["step"]) for each in answer["steps"]]
    assert steps == [(waiting, "staged"), (in_work, "processing"), (failed, "failed")]
    most = gateway.settings.max_retries
    assert (answer["attempt"], answer["max_retries"], answer["retry_at"]) == (2, most, due_at.timestamp())

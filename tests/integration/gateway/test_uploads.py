"""Direct uploads and idempotency keys over HTTP: the rows decide, and nothing is accepted twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from dream.db import DreamTask, DreamUpload
from dream.errors import KeyReused
from dream.producer import Producer
from dream.producer.receipts import upload_once
from dream.storage import Storage
from tests.gateway import DREAM, OTHER_DREAM, OWNER, STRANGER, Gateway, auth, token

UPLOADS, IMAGES = f"/api/dreams/{DREAM}/uploads", f"/api/dreams/{DREAM}/images"
JPEG = b"\xff\xd8\xff not decoded here"
NOT_ARRIVED = {
    "code": "file_not_arrived",
    "error": "the file is not in the object store; send it, and then complete the upload",
}


def announced(name: str = "a.jpg", data: bytes = JPEG, kind: str = "image/jpeg", **more: Any) -> dict[str, Any]:
    return {"name": name, "size": len(data), "type": kind, **more}


def begin(gateway: Gateway, *files: dict[str, Any]) -> httpx.Response:
    return gateway.http.post(UPLOADS, content=json.dumps({"files": files}), headers=auth())


def complete(gateway: Gateway, upload_id: str, dream_id: int = DREAM, **how: Any) -> httpx.Response:
    how = {"headers": auth(), **how}
    return gateway.http.post(f"/api/dreams/{dream_id}/uploads/{upload_id}/complete", **how)


def put(order: dict[str, Any], data: bytes = JPEG) -> int:
    return httpx.request(order["method"], order["url"], headers=order["headers"], content=data).status_code


def tasks(gateway: Gateway) -> list[str]:
    with gateway.database.read() as session:
        return list(session.scalars(select(DreamTask.id)))


def staged(gateway: Gateway) -> int:
    return len(list(Storage(gateway.settings).list_keys(gateway.settings.staging_bucket, "staging/")))


# --- direct uploads


def test_files_that_clients_put_themselves_are_an_upload_like_any_other(gateway: Gateway) -> None:
    """Bad files are refused by name, the store takes each file as announced only, and completions are one."""
    answer = begin(
        gateway,
        announced("a.jpg", position=3, focus=[0.25, 0.5]),
        announced("page.html", kind="text/html"),
        announced("none.jpg", b""),
        announced("b", kind="", position=9),
        announced("big.jpg") | {"size": 10**12},
        announced("a\ud800.jpg"),
    )
    assert answer.status_code == 201, answer.text
    begun = answer.json()
    assert [(each["index"], each["name"]) for each in begun["files"]] == [(0, "a.jpg"), (3, "b")]
    assert [each["headers"] for each in begun["files"]] == [
        {"Content-Type": "image/jpeg"},
        {"Content-Type": "application/octet-stream"},
    ]
    assert [(each["index"], each["code"]) for each in begun["refused"]] == [
        (1, "not_an_image"),
        (2, "file_empty"),
        (4, "file_too_large"),
        (5, "file_name_invalid"),
    ]
    assert 0 < begun["expires_in_s"] <= gateway.settings.direct_upload_ttl_s
    first, second = begun["files"]
    assert put(first, JPEG + b"!") == put(first, JPEG[1:]) == 403
    assert put({**first, "headers": {"Content-Type": "text/html"}}) == 403
    assert put(first) == put(second) == 200
    done = complete(gateway, begun["upload_id"])
    assert done.status_code == 202, done.text
    assert done.json() == {"task_id": begun["upload_id"], "dream_id": DREAM, "files": 2, "refused": []}
    assert complete(gateway, begun["upload_id"]).json() == done.json()
    listed = gateway.http.get(IMAGES, headers=auth()).json()
    assert [(each["filename"], each["position"], each["focus"], each["state"]) for each in listed] == [
        ("a.jpg", 3, [0.25, 0.5], "pending"),
        ("b", 9, None, "pending"),
    ]
    assert tasks(gateway) == [begun["upload_id"]]
    assert staged(gateway) == 2


def test_files_that_have_not_arrived_are_refused_and_the_others_accepted(gateway: Gateway) -> None:
    """With none, the upload stays open. A late file changes no answer that was given."""
    begun = begin(gateway, announced("a.jpg"), announced("b.jpg"), announced("c.jpg")).json()
    none = complete(gateway, begun["upload_id"])
    assert (none.status_code, none.json()["code"], len(none.json()["refused"])) == (409, "file_not_arrived", 3)
    assert put(begun["files"][0]) == 200
    with gateway.database.read() as session:
        [row] = session.scalars(select(DreamUpload)).all()
    # A store that does not check the signed length.
    Storage(gateway.settings).put_bytes(gateway.settings.staging_bucket, row.files[2]["staged"], b"x")
    done = complete(gateway, begun["upload_id"])
    assert (done.status_code, done.json()["files"]) == (202, 1)
    differs = f"the file has 1 bytes, not the {len(JPEG)} bytes that were announced"
    assert done.json()["refused"] == [
        {"index": 1, "name": "b.jpg", **NOT_ARRIVED},
        {"index": 2, "name": "c.jpg", "code": "file_size_differs", "error": differs},
    ]
    assert staged(gateway) == 1
    assert put(begun["files"][1]) == 200
    assert complete(gateway, begun["upload_id"]).json() == done.json()
    assert len(gateway.http.get(IMAGES, headers=auth()).json()) == 1


def test_many_completions_at_once_make_one_task(gateway: Gateway) -> None:
    begun = begin(gateway, announced()).json()
    assert put(begun["files"][0]) == 200
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: complete(gateway, begun["upload_id"]), range(16)))
    assert {each.status_code for each in answers} == {202}
    assert len({each.text for each in answers}) == 1
    assert tasks(gateway) == [begun["upload_id"]]
    assert len(gateway.http.get(IMAGES, headers=auth()).json()) == 1


def test_an_upload_is_its_dreams_alone(gateway: Gateway) -> None:
    """Another user, another dream, and an id that was never given get no task."""
    begun = begin(gateway, announced()).json()
    assert put(begun["files"][0]) == 200
    stranger = auth(token(STRANGER))
    assert complete(gateway, begun["upload_id"], headers=stranger).status_code == 403
    answers = [complete(gateway, begun["upload_id"], OTHER_DREAM, headers=stranger)]
    answers += [complete(gateway, each) for each in ("0", "a%00b", "x" * 500, "00000000-0000-4000-8000-000000000000")]
    assert {(each.status_code, each.json()["code"]) for each in answers} == {(404, "upload_unknown")}
    assert gateway.http.post(UPLOADS, json={"files": [announced()]}).status_code == 401
    assert tasks(gateway) == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"nonsense"),
        (400, b"[" * 5000),
        (400, b'{"files": []}'),
        (400, b'{"files": {}}'),
        (400, b'{"files": ["a.jpg"]}'),
        (400, b'{"files": [{"name": "a.jpg"}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 1, "url": "x"}]}'),
        (400, b'{"files": [{"name": 1, "size": 1}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 1.5}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": -1}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": true}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": ' + b"9" * 400 + b"}]}"),
        (400, b'{"files": [{"name": "a.jpg", "size": 1, "type": 7}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 1, "type": []}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 1, "position": "1"}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 1, "focus": [2, 0]}]}'),
        (400, b'{"files": [{"name": "a.jpg", "size": 0}]}'),
        (413, b'{"files": [{"name": "a.jpg", "size": 1001}]}'),
        (413, b'{"files": [1, 2, 3, 4, 5]}'),
        (413, b" " * 20_000),
    ],
)
def test_a_wrong_announcement_is_refused_and_leaves_nothing(strict: Gateway, status: int, body: bytes) -> None:
    answer = strict.http.post(UPLOADS, content=body, headers=auth())
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    with strict.database.read() as session:
        assert session.scalars(select(DreamUpload)).all() == []


def test_open_uploads_count_in_the_limits_of_their_user(start: Callable[..., Gateway]) -> None:
    """The number of waiting files, and their bytes. A completion and a repeated request need no room: it is theirs."""
    with start(max_pending_per_user="3", max_stored_bytes_per_user="1000") as gateway:
        assert begin(gateway, *[announced()] * 4).json()["code"] == "too_many_pending"
        first = post(gateway, {"a.jpg": JPEG}, "k")
        assert begin(gateway, announced() | {"size": 1001}).json()["code"] == "quota_exceeded"
        begun = begin(gateway, announced(data=b"x" * 600)).json()
        assert begin(gateway, announced(data=b"x" * 600)).json()["code"] == "quota_exceeded"
        other = begin(gateway, announced()).json()
        assert begin(gateway, announced()).status_code == 429
        assert post(gateway, {"a.jpg": JPEG}, "full").status_code == 429
        assert post(gateway, {"a.jpg": JPEG}, "k").json() == first.json()
        assert put(begun["files"][0], b"x" * 600) == put(other["files"][0]) == 200
        assert complete(gateway, begun["upload_id"]).status_code == 202
        assert begin(gateway, announced()).status_code == 429
        assert complete(gateway, other["upload_id"]).status_code == 202


# --- idempotency keys


def post(gateway: Gateway, files: dict[str, bytes], key: str | None = None, **data: str) -> httpx.Response:
    form = [("files", (name, content)) for name, content in files.items()]
    headers = auth() if key is None else {**auth(), "Idempotency-Key": key}
    return gateway.http.post(IMAGES, files=form, data=data, headers=headers)


def test_a_repeated_request_gets_the_first_answer(strict: Gateway) -> None:
    """Refused files are in it, too; nothing is stored twice; another key, dream or user is another request."""
    files = {"a.jpg": JPEG, "big.jpg": b"x" * 1001}
    first = post(strict, files, "k 1", positions="4,5")
    assert (first.status_code, first.json()["files"], len(first.json()["refused"])) == (202, 1, 1)
    for _ in range(2):
        again = post(strict, files, "k 1", positions="4,5")
        assert (again.status_code, again.json()) == (202, first.json())
    assert (len(tasks(strict)), staged(strict)) == (1, 1)
    assert post(strict, files, "k 2", positions="4,5").json()["task_id"] != first.json()["task_id"]
    assert post(strict, files, positions="4,5").json()["task_id"] != first.json()["task_id"]
    theirs = {"Authorization": f"Bearer {token(STRANGER)}", "Idempotency-Key": "k 1"}
    form = [("files", ("a.jpg", JPEG))]
    other = strict.http.post(f"/api/dreams/{OTHER_DREAM}/images", files=form, headers=theirs)
    assert (other.status_code, len(tasks(strict))) == (202, 4)


@pytest.mark.parametrize(
    ("files", "positions"),
    [
        ({"a.jpg": JPEG + b"!"}, "4"),
        ({"b.jpg": JPEG}, "4"),
        ({"a.jpg": JPEG}, "5"),
        ({"a.jpg": JPEG, "b.jpg": JPEG}, "4,4"),
        ({"a.jpg": JPEG, "none.jpg": b""}, "4,4"),
    ],
    ids=["bytes", "name", "position", "more", "refused"],
)
def test_a_key_with_another_request_is_refused(strict: Gateway, files: dict[str, bytes], positions: str) -> None:
    assert post(strict, {"a.jpg": JPEG}, "k", positions="4").status_code == 202
    answer = post(strict, files, "k", positions=positions)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert (len(tasks(strict)), staged(strict)) == (1, 1)


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
def test_a_key_that_is_none_is_refused(strict: Gateway, key: str) -> None:
    headers = {**auth(), "Idempotency-Key": key.encode()}
    answer = strict.http.post(IMAGES, files=[("files", ("a.jpg", JPEG))], headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")


def test_requests_with_one_key_at_once_over_several_gateways_are_one_upload(gateway: Gateway) -> None:
    """Another gateway is another producer on the same rows. The bytes of the others are removed again."""
    with closing(Producer(gateway.settings)) as other, ThreadPoolExecutor(8) as threads:

        def ask(number: int) -> Any:
            if number % 2:
                return post(gateway, {"a.jpg": JPEG}, "k").json()
            files: Any = [{"name": "a.jpg", "data": JPEG, "focus": None}]
            return upload_once(other, DREAM, files, [0], [], user_id=OWNER, key="k")

        answers = list(threads.map(ask, range(12)))
        with pytest.raises(KeyReused):
            upload_once(other, DREAM, [{"name": "a.jpg", "data": b"x"}], [0], [], user_id=OWNER, key="k")
    assert all(each == answers[0] for each in answers)
    assert (len(tasks(gateway)), staged(gateway)) == (1, 1)

"""Pictures over HTTP: uploads, lists, deletions, and the addresses that lead to their bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from dream.db import DreamImage, images
from dream.messages.pictures import VariantRef
from dream.messages.states import ImageState
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.storage import Storage
from dream.storage.signing import window_at
from tests.gateway import DREAM, KEY, OTHER_DREAM, STRANGER, Gateway, auth, token


def staged(gateway: Gateway) -> int:
    return len(list(Storage(gateway.settings).list_keys(gateway.settings.staging_bucket, "staging/")))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ({}, [0, 0]),
        ({"positions": ["3", "9"]}, [3, 9]),
        ({"positions": "3,9"}, [3, 9]),
        ({"positions": "[3, 9]"}, [3, 9]),
    ],
    ids=["none", "repeated", "commas", "json"],
)
def test_an_upload_is_accepted_with_its_positions(
    gateway: Gateway, positions: dict[str, Any], expected: list[int]
) -> None:
    """202 names the task; rows and staged bytes are there, with names and positions in the order of the form."""
    files = [("files", ("ä.jpg", b"one")), ("images", ("b.jpg", b"two" * 1_000_000))]
    answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, data=positions, headers=auth())
    assert answer.status_code == 202, answer.text
    listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert [image["position"] for image in listed] == expected
    assert [image["filename"] for image in listed] == ["ä.jpg", "b.jpg"]
    assert {image["task_id"] for image in listed} == {answer.json()["task_id"]}
    assert {image["state"] for image in listed} == {"pending"}
    assert staged(gateway) == 2


#: The first file is whole.
CUT_OFF = b"".join(
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b' % part
    for part in ((b"a.jpg", b"whole\r\n"), (b"b.jpg", b"ha"))
)


IN_CHARSET = b'--b\r\nContent-Disposition: form-data; name="files"; filename="\xff-\xff"\r\n\r\nx\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("status", "form"),
    [
        (413, {"files": [("files", ("big.jpg", b"x" * 1001))]}),
        (413, {"files": [("files", (f"{n}.jpg", b"x")) for n in range(5)]}),
        (413, {"files": [("files", ("big.jpg", b"x" * 3_000_000))]}),
        (400, {"files": [("other", ("", b""))]}),
        (400, {"files": [("files", ("empty.jpg", b""))]}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": "1,2"}}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": "one"}}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": str(2**40)}}),
        (400, {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        (400, {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data"}}),
        (400, {"content": CUT_OFF, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        (
            400,
            {"content": IN_CHARSET, "headers": {"Content-Type": "multipart/form-data; boundary=b; charset=undefined"}},
        ),
        (415, {"json": {}}),
    ],
    ids=[
        "file",
        "count",
        "length",
        "none",
        "empty",
        "positions",
        "word",
        "range",
        "form",
        "boundary",
        "cut off",
        "charset",
        "json",
    ],
)
def test_a_wrong_upload_is_refused_and_leaves_nothing(strict: Gateway, status: int, form: dict[str, Any]) -> None:
    """A request that is too large or malformed gets one clear sentence; neither rows nor bytes stay behind."""
    own = {**form, "headers": {**form.get("headers", {}), **auth()}}
    answer = strict.http.post(f"/api/dreams/{DREAM}/images", **own)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert strict.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json() == []
    assert staged(strict) == 0


def part(name: bytes | None, data: bytes) -> bytes:
    """A file of a form."""
    named = b"" if name is None else b'; filename="%b"' % name
    return b'--b\r\nContent-Disposition: form-data; name="files"%b\r\n\r\n%b\r\n' % (named, data)


def post(gateway: Gateway, *parts: bytes, positions: str = "") -> httpx.Response:
    """Send a form in pieces of unknown number, as a streaming client does."""
    field = b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n%b\r\n' % positions.encode()
    body = b"".join([field, *parts, b"--b--\r\n"])
    pieces = (body[start : start + 4096] for start in range(0, len(body), 4096))
    headers = {"Content-Type": "multipart/form-data; boundary=b", **auth()}
    return gateway.http.post(f"/api/dreams/{DREAM}/images", content=pieces, headers=headers)


TOO_LARGE = {"code": "file_too_large", "error": "the file has 50000 bytes, more than the 1000 bytes allowed"}
EMPTY = {"code": "file_empty", "error": "the file is empty"}
NO_NAME = {"code": "file_name_invalid", "error": "the file has characters in its name that are not text"}


def test_bad_files_are_refused_by_name_and_the_others_are_accepted(strict: Gateway) -> None:
    """At any place in the request; positions belong to the files that were sent; today's fields are as they were."""
    answer = post(
        strict,
        part(b"big.jpg", b"x" * 50_000),
        part(b"a.jpg", b"one"),
        part(b"none.jpg", b""),
        part(b"b.jpg", b"x" * 1000),
        positions="1,2,3,4",
    )
    assert answer.status_code == 202, answer.text
    body = answer.json()
    refused = [{"index": 0, "name": "big.jpg", **TOO_LARGE}, {"index": 2, "name": "none.jpg", **EMPTY}]
    assert body == {"task_id": body["task_id"], "dream_id": DREAM, "files": 2, "refused": refused}
    listed = strict.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert [(image["filename"], image["position"]) for image in listed] == [("a.jpg", 2), ("b.jpg", 4)]
    storage, bucket = Storage(strict.settings), strict.settings.staging_bucket
    with strict.database.read() as session:
        keys = [row.staging_key or "" for row in images.list_images(session, DREAM)]
    assert sorted(key for key, _ in storage.list_keys(bucket, "staging/")) == sorted(keys)
    assert [httpx.get(storage.presign(bucket, key)).content for key in keys] == [b"one", b"x" * 1000]


def test_an_upload_without_a_bad_file_refuses_none(strict: Gateway) -> None:
    """The field is there, empty; a file that was sent twice is two pictures."""
    answer = post(strict, part(b"a.jpg", b"one"), part(b"a.jpg", b"one"))
    assert (answer.status_code, answer.json()["files"], answer.json()["refused"]) == (202, 2, [])


@pytest.mark.parametrize(
    ("status", "error", "parts", "refused"),
    [
        (
            413,
            "big.jpg: the file has 50000 bytes, more than the 1000 bytes allowed",
            [part(b"big.jpg", b"x" * 50_000)],
            [{"index": 0, "name": "big.jpg", **TOO_LARGE}],
        ),
        (
            400,
            "none.jpg: the file is empty (and 1 more refused)",
            [part(b"none.jpg", b""), part(b"big.jpg", b"x" * 50_000)],
            [{"index": 0, "name": "none.jpg", **EMPTY}, {"index": 1, "name": "big.jpg", **TOO_LARGE}],
        ),
        (
            413,
            "picture: the file has 50000 bytes, more than the 1000 bytes allowed",
            [part(b"", b""), part(b"", b"x" * 50_000)],
            [{"index": 0, "name": "picture", **TOO_LARGE}],
        ),
        (
            400,
            "a\ufffdb.jpg: the file has characters in its name that are not text",
            [part(b"a\0b.jpg", b"x")],
            [{"index": 0, "name": "a\ufffdb.jpg", **NO_NAME}],
        ),
    ],
    ids=["too large", "empty first", "nameless", "name"],
)
def test_an_upload_of_bad_files_alone_is_refused(
    strict: Gateway, status: int, error: str, parts: list[bytes], refused: list[dict[str, Any]]
) -> None:
    """Today's status and `error`, the code of the first file, and each file by its name; nothing stays behind."""
    answer = post(strict, *parts)
    code = refused[0]["code"]
    assert (answer.status_code, answer.json()) == (status, {"error": error, "code": code, "refused": refused})
    assert strict.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json() == []
    assert staged(strict) == 0


@pytest.mark.parametrize("positions", ["1", "1,2,3", "1,x", f"1,{2**40}"])
def test_positions_must_fit_all_files_that_were_sent(strict: Gateway, positions: str) -> None:
    """One that is missing refuses the whole: nobody knows which file it belongs to."""
    answer = post(strict, part(b"big.jpg", b"x" * 50_000), part(b"a.jpg", b"one"), positions=positions)
    code = "form_invalid" if "x" in positions else "invalid_arguments"
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert "position" in answer.json()["error"]
    assert staged(strict) == 0


def test_a_file_that_is_too_large_is_read_past_without_being_kept(start: Callable[..., Gateway]) -> None:
    """Its bytes stand on no disk while the rest is read, and nothing of it is left."""
    with start(max_upload_bytes="20000000") as gateway:
        body = (
            part(b"a.jpg", b"one"),
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="film.mp4"\r\n\r\n',
            *[b"x" * 2**20] * 40,
        )
        most_kept = 0

        def watched() -> Iterator[bytes]:
            nonlocal most_kept
            for piece in body:
                yield piece
                most_kept = max(most_kept, open_bytes(gateway.process.pid))
            yield b"\r\n" + part(b"b.jpg", b"two") + b"--b--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=b", **auth()}
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", content=watched(), headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.json()["refused"] == [
            {
                "index": 1,
                "name": "film.mp4",
                "code": "file_too_large",
                "error": "the file has 41.9 MB, more than the 20.0 MB allowed",
            }
        ]
        assert 1_000_000 < most_kept <= 20_000_000
        listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
        assert [image["filename"] for image in listed] == ["a.jpg", "b.jpg"]


def open_bytes(pid: int) -> int:
    """The bytes of files without a name that the process holds open."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).endswith("(deleted)"):
                total += link.stat().st_size
    return total


def test_a_user_with_too_much_waiting_is_told_to_come_back(start: Callable[..., Gateway]) -> None:
    """429 with Retry-After, before the bytes are read; what waits already stays."""
    files = [("files", ("a.jpg", b"x"))]
    with start(max_pending_per_user="2") as gateway:
        address = f"/api/dreams/{DREAM}/images"
        assert gateway.http.post(address, files=files * 2, headers=auth()).status_code == 202
        refused = gateway.http.post(address, files=files, headers=auth())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert "DREAM_MAX_PENDING_PER_USER" in refused.json()["error"]
        assert staged(gateway) == 2


def test_an_upload_of_unknown_length_is_counted_while_it_is_read(start: Callable[..., Gateway]) -> None:
    """A chunked upload is refused once it has passed the limit, and nothing stays behind."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", **auth()}
    with start(max_request_bytes="100000") as gateway:
        body = (head, *[b"x" * 65536] * 20)
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", content=iter(body), headers=headers)
        assert answer.status_code == 413
        assert "0.1 MB" in answer.json()["error"]
        assert staged(gateway) == 0


def test_an_upload_without_the_object_store_is_503(start: Callable[..., Gateway]) -> None:
    """503 with Retry-After where the store is away, and no rows."""
    with start(s3_endpoint_url="http://127.0.0.1:1", s3_connect_timeout_s="0.5") as gateway:
        files = [("files", ("a.jpg", b"one"))]
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, headers=auth())
        assert (answer.status_code, answer.json()["code"]) == (503, "object_store_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        with gateway.database.read() as session:
            assert images.list_images(session, DREAM) == []


def test_only_the_owner_may_touch_a_dream(gateway: Gateway) -> None:
    """401 without a token, 403 for a stranger, 404 where there is no such dream: for each method."""
    image_id = gateway.add_image()
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{image_id}"), ("DELETE", f"/{image_id}")):
        for headers, dream_id, status in (({}, DREAM, 401), (auth(token(STRANGER)), DREAM, 403), (auth(), 999, 404)):
            answer = gateway.http.request(method, f"/api/dreams/{dream_id}/images{path}", headers=headers)
            assert answer.status_code == status, (method, path)
            codes = {401: "token_rejected", 403: "dream_not_yours", 404: "dream_not_found"}
            assert answer.json()["code"] == codes[status]


def test_the_owner_reads_the_facts_of_one_picture(gateway: Gateway) -> None:
    """With the fields of the list, which has no facts; of no other dream's picture, and of none that is deleted."""
    image_id, other = gateway.add_image(), gateway.add_image(number=1, dream_id=OTHER_DREAM)
    address, facts = f"/api/dreams/{DREAM}/images", {"taken_at": "2024-05-06T07:08:09+02:00", "latitude": -33.8569}
    (listed,) = gateway.http.get(address, headers=auth()).json()
    assert gateway.http.get(f"{address}/{image_id}", headers=auth()).json() == {**listed, "facts": None}
    with gateway.database.begin() as session:
        session.get_one(DreamImage, image_id).facts = facts
    answer = gateway.http.get(f"{address}/{image_id}", headers=auth())
    assert answer.json() == {**listed, "facts": facts}
    assert answer.headers["cache-control"] == "no-store"
    assert "taken_at" not in gateway.http.get(address, headers=auth()).text
    for unknown in (other, 999_999, 2**80):
        assert gateway.http.get(f"{address}/{unknown}", headers=auth()).status_code == 404
    assert set(gateway.http.post(f"{address}/{image_id}", headers=auth()).headers["allow"].split(", ")) == {
        *("DELETE", "GET", "HEAD")
    }
    assert gateway.http.delete(f"{address}/{image_id}", headers=auth()).status_code == 202
    assert gateway.http.get(f"{address}/{image_id}", headers=auth()).status_code == 404


def test_deleting_an_image_hides_it_at_once(gateway: Gateway) -> None:
    """202 with a task; the picture is gone from the list and from /media; other dreams' images are 404."""
    image_id, other = gateway.add_image(), gateway.add_image(number=1, dream_id=OTHER_DREAM)
    assert gateway.http.get(f"/media/{KEY}").status_code == 302
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{other}", headers=auth()).status_code == 404
    answer = gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth())
    assert answer.status_code == 202
    assert answer.json()["task_id"]
    assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json() == []
    assert gateway.http.get(f"/media/{KEY}").status_code == 404
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth()).status_code == 404


def test_media_knows_the_variants_of_a_picture_for_as_long_as_it_is_there(gateway: Gateway) -> None:
    """They are listed with the picture, redirect to a GET that works, and are 404 from its deletion on."""
    image_id = gateway.add_image()
    key, other = KEY.replace(".jpg", "_thumb.jpg"), KEY.replace(".jpg", "_other.jpg")
    thumb = VariantRef(
        name="thumb",
        url=f"{gateway.settings.media_url}/{key}",
        width_px=32,
        height_px=24,
        size_bytes=5,
        content_type="image/jpeg",
    )
    with gateway.database.begin() as session:
        image = images.by_id(session, DREAM, image_id)
        assert image is not None
        image.variants = [thumb]
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, key, b"thumb")
    (listed,) = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert listed["variants"] == [thumb]
    assert httpx.get(gateway.http.get(f"/media/{key}").headers["location"]).content == b"thumb"
    # It may have been a WebP once: its URL goes on leading to the variant.
    assert httpx.get(gateway.http.get(f"/media/{key.replace('.jpg', '.webp')}").headers["location"]).content == b"thumb"
    for unknown in (other, KEY.replace(".jpg", "_.jpg")):
        assert gateway.http.get(f"/media/{unknown}").status_code == 404, unknown
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth()).status_code == 202
    assert gateway.http.get(f"/media/{key}").status_code == 404


def test_python_lists_what_rest_lists(gateway: Gateway) -> None:
    """The same fields, values and order."""
    for number, state in enumerate((ImageState.COMPLETED, ImageState.FAILED, ImageState.PENDING)):
        gateway.add_image(state, number=number)
    listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert len(listed) == 3
    assert (
        Producer(gateway.settings, Connections(gateway.settings, database=gateway.database)).list_images(DREAM)
        == listed
    )


def test_media_redirects_to_a_get_that_works(gateway: Gateway) -> None:
    """A finished picture's URL leads to its bytes, for everybody by one address; the redirect is kept for a while."""
    gateway.add_image(number=31)
    key = KEY.replace("0" * 32, f"{31:032x}")
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, key, b"bytes")
    answers = [gateway.http.get(f"/media/{key}", headers=headers) for headers in ({}, auth(), {})]
    assert {answer.status_code for answer in answers} == {302}
    left_s = window_at(gateway.settings, time.time()).left_s
    policy = answers[0].headers["cache-control"]
    kept_s = int(policy.removeprefix("private, max-age=")) if policy != "no-store" else 0
    assert min(300, int(left_s)) <= kept_s <= 300
    assert len({answer.headers["location"] for answer in answers}) == 1 or left_s > 86_000  # a border lay between
    assert httpx.get(answers[0].headers["location"]).content == b"bytes"


def test_media_of_another_gateway_leads_to_the_same_address(
    start: Callable[..., Gateway], environment: dict[str, str], tmp_path: Path
) -> None:
    """Two processes that share nothing but settings and the database; also where the redirect is kept by nobody."""
    (tmp_path / "other").mkdir()
    with (
        start() as first,
        Gateway(
            {**environment, "DREAM_PORT": "0", "DREAM_MEDIA_FORGET_S": "0"}, first.settings, tmp_path / "other"
        ) as second,
    ):
        first.add_image()
        kept, fresh = (each.http.get(f"/media/{KEY}") for each in (first, second))
    assert fresh.headers["cache-control"] == "no-store"
    assert kept.headers["location"] == fresh.headers["location"]


def test_a_head_is_led_to_a_head(gateway: Gateway) -> None:
    """Its address is signed for HEAD and kept by nobody: a cache must not answer a GET with it."""
    gateway.add_image()
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, KEY, b"bytes")
    answer = gateway.http.head(f"/media/{KEY}")
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
    found = httpx.head(answer.headers["location"])
    assert (found.status_code, found.headers["content-length"]) == (200, "5")
    assert gateway.http.head(f"/media/{KEY.replace('0', '1')}").status_code == 404


@pytest.mark.parametrize(
    "state", [ImageState.PENDING, ImageState.FAILED, ImageState.DELETING, ImageState.DELETED, None]
)
def test_media_is_404_for_what_is_not_finished(gateway: Gateway, state: ImageState | None) -> None:
    if state is not None:
        gateway.add_image(state, number=41)
    for key in (KEY.replace("0" * 32, f"{41:032x}"), "x", "../../etc/passwd", "%00"):
        answer = gateway.http.get(f"/media/{key}")
        assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")

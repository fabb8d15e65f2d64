"""Pictures through the gateway: what it passes on from the store, to whom, and what a cache may keep."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dream.db import images
from dream.db.clock import now
from dream.db.dreams import give_to
from dream.media.signatures import COOKIE, sign_with
from dream.messages.pictures import VariantRef
from dream.messages.states import ImageState
from dream.storage import Storage
from tests.conftest import wait_for
from tests.gateway import DREAM, KEY, OTHER_DREAM, OWNER, STRANGER, Gateway, auth, emptied, running, token
from tests.scraping import free_port, until
from tests.store_proxy import StoreFault, StoreProxy

BYTES = hashlib.shake_256(b"picture").digest(700_001)
KEYS = f"{'a key of the tests ' * 3},{'an older key of the tests ' * 3}"
FORGET_S = 240
#: A gateway remembers the pictures of the tests before.
_NUMBERS = count()


def key_of(number: int) -> str:
    return KEY.replace("0" * 32, f"{number:032x}")


def stored(gateway: Gateway, number: int, *, data: bytes = BYTES, filename: str = "a.jpg", **how: Any) -> str:
    """A picture with its row and object; returns its path."""
    image_id = gateway.add_image(number=number, **how)
    with gateway.database.begin() as session:
        image = images.by_id(session, how.get("dream_id", DREAM), image_id)
        assert image is not None
        image.content_type, image.size_bytes, image.filename = "image/webp", len(data), filename
    folder = gateway.log.parent / "object"
    folder.write_bytes(data)
    Storage(gateway.settings).put_file(gateway.settings.s3_bucket, key_of(number), folder, "image/webp")
    return f"/media/{key_of(number)}"


@pytest.fixture(scope="module")
def store(servers: dict[str, str]) -> Iterator[StoreProxy]:
    upstream = urlsplit(servers["DREAM_S3_ENDPOINT_URL"])
    proxy = StoreProxy((upstream.hostname or "", upstream.port or 0))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def gateways(
    servers: dict[str, str], store: StoreProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Gateway]]:
    """One process for each combination of settings that a test wants."""
    with ExitStack() as stack:
        running_ones: dict[tuple[tuple[str, str], ...], Gateway] = {}

        def gateway(**changes: str) -> Gateway:
            wanted = tuple(sorted(changes.items()))
            if wanted not in running_ones:
                variables = {f"DREAM_{name.upper()}": value for name, value in changes.items()}
                folder = tmp_path_factory.mktemp("media")
                running_ones[wanted] = stack.enter_context(running(folder, servers, **variables))
            return emptied(running_ones[wanted])

        yield gateway


@pytest.fixture(params=["0", "8000000"])
def proxying(gateways: Callable[..., Gateway], store: StoreProxy, request: pytest.FixtureRequest) -> Gateway:
    """A gateway that passes pictures on; its store is behind the proxy of the tests."""
    return gateways(
        media_mode="proxy",
        media_memory_bytes=request.param,
        media_forget_s=str(FORGET_S),
        s3_endpoint_url=f"http://127.0.0.1:{store.port}",
        s3_read_timeout_s="2",
    )


@pytest.fixture
def signing(gateways: Callable[..., Gateway]) -> Gateway:
    return gateways(media_mode="proxy", media_cache="public", media_access="signed", media_keys=KEYS)


@pytest.fixture
def owning(gateways: Callable[..., Gateway]) -> Gateway:
    return gateways(media_access="owner", media_keys=KEYS, gateway_url="https://dream.example/app")


# --- proxy: what is sent


def test_a_picture_is_passed_on_with_the_type_of_its_row_and_a_policy(proxying: Gateway) -> None:
    answer = proxying.http.get(stored(proxying, 1))
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-length"] == str(len(BYTES))
    assert answer.headers["cache-control"] == f"private, max-age={FORGET_S}"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["last-modified"]
    assert not {"content-disposition", "x-amz-request-id", "location", "set-cookie"} & set(answer.headers)


def test_a_client_that_has_the_picture_gets_304_without_a_question_to_the_store(
    proxying: Gateway, store: StoreProxy
) -> None:
    path = stored(proxying, 2)
    tag = proxying.http.get(path).headers["etag"]
    with store.failing(asked := StoreFault("GET", key_of(2))):
        for sent in (tag, f'"another", W/{tag}', "*"):
            answer = proxying.http.get(path, headers={"If-None-Match": sent})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
            assert answer.headers["cache-control"].startswith("private, max-age=")
        lines = [("If-None-Match", '"another"'), ("If-None-Match", tag)]
        assert proxying.http.get(path, headers=lines).status_code == 304
        assert asked.hits == 0
        assert proxying.http.get(path, headers={"If-None-Match": '"another"'}).content == BYTES
        assert proxying.http.get(path, headers={"Range": "bytes=0-4"}).content == BYTES[:5]
        assert asked.hits >= 1


def test_a_picture_that_did_not_change_since_a_time_is_304(proxying: Gateway) -> None:
    path = stored(proxying, 3)
    changed = proxying.http.get(path).headers["last-modified"]
    answer = proxying.http.get(path, headers={"If-Modified-Since": changed})
    assert (answer.status_code, answer.content) == (304, b"")
    for other in ("Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "", "Thu, 99 Jan 99999 00:00:00 GMT", "1"):
        assert proxying.http.get(path, headers={"If-Modified-Since": other}).content == BYTES, other


def test_a_head_has_the_headers_and_no_body(proxying: Gateway) -> None:
    path = stored(proxying, 4)
    shown, whole = proxying.http.head(path), proxying.http.get(path)
    assert (shown.status_code, shown.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "last-modified", "accept-ranges"):
        assert shown.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=700000-", 700_000, 700_000), ("bytes=-5", 699_996, 700_000)],
)
def test_a_range_of_the_picture_can_be_read(proxying: Gateway, asked: str, first: int, last: int) -> None:
    path = stored(proxying, 5)
    answer = proxying.http.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, BYTES[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(BYTES)}"
    assert answer.headers["etag"] == proxying.http.get(path).headers["etag"]


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=1-2-3", "0-1", "bytes=٣-"]
)
def test_what_is_no_single_range_gets_the_whole_picture(proxying: Gateway, asked: str) -> None:
    answer = proxying.http.get(stored(proxying, 6), headers={"Range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, BYTES)


def test_a_range_behind_the_end_is_416(proxying: Gateway) -> None:
    answer = proxying.http.get(stored(proxying, 7), headers={"Range": f"bytes={len(BYTES)}-"})
    assert (answer.status_code, answer.headers["cache-control"]) == (416, "no-store")
    assert answer.json() == {"error": "the picture has no such range of bytes", "code": "range_not_there"}


def test_a_range_of_another_object_is_not_mixed_with_this_one(proxying: Gateway) -> None:
    path = stored(proxying, 8)
    tag = proxying.http.get(path).headers["etag"]
    asked = {"Range": "bytes=0-9"}
    assert proxying.http.get(path, headers={**asked, "If-Range": tag}).status_code == 206
    for other in ('"other"', "Thu, 01 Jan 2026 00:00:00 GMT", f"W/{tag}"):
        assert proxying.http.get(path, headers={**asked, "If-Range": other}).status_code == 200


@pytest.mark.parametrize(
    ("filename", "said"),
    [
        ("holiday.webp", 'attachment; filename="holiday.webp"'),
        ("holiday.HEIC", 'attachment; filename="holiday.webp"'),
        ("日本.jpg", "attachment; filename=\"__.webp\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.webp"),
        (
            "a\r\nSet-Cookie: x=1.html",
            "attachment; filename=\"a__Set-Cookie_ x_1.webp\"; filename*=UTF-8''a__Set-Cookie%3A%20x%3D1.webp",
        ),
    ],
)
def test_a_download_has_the_name_of_the_uploaded_file(proxying: Gateway, filename: str, said: str) -> None:
    number = 100 + len(filename)
    path = stored(proxying, number, filename=filename)
    answer = proxying.http.get(f"{path}?download")
    assert answer.headers["content-disposition"] == said
    assert "set-cookie" not in answer.headers
    assert answer.content == BYTES


def test_a_variant_is_passed_on_with_its_own_type_and_tag(proxying: Gateway) -> None:
    path = stored(proxying, 9)
    key = key_of(9).replace(".jpg", "_thumb.avif")
    url = f"{proxying.settings.media_url}/{key}"
    thumb = VariantRef(name="thumb", url=url, width_px=3, height_px=2, size_bytes=5, content_type="image/avif")
    with proxying.database.begin() as session:
        image = images.by_key(session, key_of(9))
        assert image is not None
        image.variants = [thumb]
    Storage(proxying.settings).put_bytes(proxying.settings.s3_bucket, key, b"thumb")
    answer = proxying.http.get(f"/media/{key}")
    assert (answer.content, answer.headers["content-type"]) == (b"thumb", "image/avif")
    assert answer.headers["etag"] != proxying.http.get(path).headers["etag"]


# --- proxy: the store's faults


def cut_off(gateway: Gateway, path: str) -> int:
    """The bytes of the body that come before the connection breaks."""
    came = 0
    with gateway.http.stream("GET", path) as answer:
        try:
            for piece in answer.iter_raw():
                came += len(piece)
        except httpx.RemoteProtocolError:
            return came
    pytest.fail("the answer did not break off")


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [
        ({"status": 500}, 503, "the object store does not answer"),
        ({"status": 503}, 503, "the object store does not answer"),
        ({"status": 307}, 503, "the object store does not answer"),
        ({"status": 403, "body": "<Code>SignatureDoesNotMatch</Code>"}, 503, "refuses this site's credentials"),
        ({"status": 404, "body": "<Code>NoSuchKey</Code>"}, 404, "there is no such picture"),
        ({"hangs": True}, 504, "the object store does not answer"),
    ],
    ids=lambda each: str(each),
)
def test_a_fault_of_the_store_is_one_error_without_its_words(
    proxying: Gateway, store: StoreProxy, fault: dict[str, Any], status: int, sentence: str
) -> None:
    number = 200 + next(_NUMBERS)
    path = stored(proxying, number)
    with store.failing(StoreFault("GET", key_of(number), **fault)):
        answer = proxying.http.get(path)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert "Code" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert proxying.http.get(path).content == BYTES


def test_a_store_that_is_away_is_503_and_counted(
    gateways: Callable[..., Gateway], proxying: Gateway, tmp_path: Path
) -> None:
    """Nobody listens at the port of the proxy that was closed."""
    port = free_port()
    upstream = urlsplit(proxying.settings.s3_endpoint_url or "")
    closed = StoreProxy((upstream.hostname or "", upstream.port or 0))
    measured = {"metrics_port": str(port), "metrics_dir": str(tmp_path)}
    gateway = gateways(media_mode="proxy", s3_endpoint_url=f"http://127.0.0.1:{closed.port}", **measured)
    path = stored(gateway, 11)
    closed.close()
    answer = gateway.http.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["code"] == "object_store_unavailable"
    until(port, lambda seen: seen.sum("dream_store_errors_total", reason="unavailable") == 1, "the error")


def test_an_answer_that_breaks_off_breaks_off_for_the_client_too(proxying: Gateway, store: StoreProxy) -> None:
    """Nobody takes half a picture for a whole one; the next request gets it."""
    path = stored(proxying, 12)
    with store.failing(StoreFault("GET", key_of(12), resets=True)):
        assert 0 < cut_off(proxying, path) < len(BYTES)
    assert proxying.http.get(path).content == BYTES
    log = proxying.log.read_text()
    assert "picture_cut_off" in log
    assert "Traceback" not in log


def test_connections_to_the_store_are_used_again(proxying: Gateway, store: StoreProxy) -> None:
    """After whole answers, HEADs and 304s of the store; a connection that the store closed is no error."""
    path = stored(proxying, 13)
    seen = set[int]()
    with counting(store, seen):
        for _ in range(5):
            assert proxying.http.get(path).content == BYTES
            assert proxying.http.head(path).status_code == 200
    assert len(seen) <= 1


@contextmanager
def counting(store: StoreProxy, seen: set[int]) -> Iterator[None]:
    """Note the client's port of each new connection to the store."""
    server, before = store._server, store._server.process_request

    def note(request: Any, address: Any) -> None:
        seen.add(address[1])
        before(request, address)

    server.process_request = note  # type: ignore[method-assign]
    try:
        yield
    finally:
        server.process_request = before  # type: ignore[method-assign]


def test_a_client_that_goes_away_frees_its_connection_to_the_store(proxying: Gateway, store: StoreProxy) -> None:
    path = stored(proxying, 14, data=BYTES * 20)
    with socket.create_connection(("127.0.0.1", proxying.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert to_store(proxying, store) >= 1
    wait_for(lambda: not to_store(proxying, store), what="the end of the connection")


def test_a_crowd_that_goes_away_at_any_moment_leaves_nothing(proxying: Gateway, store: StoreProxy) -> None:
    """No connection, no file, no traceback, and no error of the gateway's own."""
    path = stored(proxying, 24, data=BYTES * 2)
    log_bytes = proxying.log.stat().st_size
    for number in range(60):
        with socket.create_connection(("127.0.0.1", proxying.port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * (1 + number % 2))
            if number % 3:
                client.recv(1 << (number % 20))
    wait_for(lambda: to_store(proxying, store) <= 1, what="the end of the connections")
    log = proxying.log.read_bytes()[log_bytes:].decode()
    assert "Traceback" not in log
    assert not {"server_fault", "picture_cut_off"} & set(log.split('"'))
    assert proxying.http.get(path).content == BYTES * 2


def to_store(gateway: Gateway, store: StoreProxy) -> int:
    """The established connections from the gateway's process to the store, without idle ones that wait for use."""
    local = set()
    for path in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        try:
            local.add(path.readlink().name)
        except OSError:
            continue
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        is_to_store = fields[2].endswith(f":{store.port:04X}") and fields[3] == "01"
        found += is_to_store and f"socket:[{fields[9]}]" in local
    return found


def test_slow_readers_hold_nobody_up_and_little_memory(proxying: Gateway) -> None:
    """A hundred clients read nothing; another one gets its picture at once."""
    path = stored(proxying, 15, data=BYTES * 10)
    quick = stored(proxying, 16)
    before = rss_bytes(proxying)
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", proxying.port)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        began = time.monotonic()
        assert proxying.http.get(quick).content == BYTES
        assert time.monotonic() - began < 10
        assert rss_bytes(proxying) - before < 100 * 600_000
    assert proxying.http.get("/healthz").status_code == 200


def rss_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


# --- proxy: pictures in memory


@pytest.fixture
def keeping(gateways: Callable[..., Gateway], store: StoreProxy) -> Gateway:
    return gateways(media_mode="proxy", media_memory_bytes="8000000", s3_endpoint_url=f"http://127.0.0.1:{store.port}")


def test_a_picture_is_read_from_the_store_once_for_a_crowd(keeping: Gateway, store: StoreProxy) -> None:
    path = stored(keeping, 40)
    with store.failing(asked := StoreFault("GET", key_of(40))), ThreadPoolExecutor(20) as pool:
        for answer in pool.map(lambda _: keeping.http.get(path), range(40)):
            assert (answer.status_code, answer.content) == (200, BYTES)
        assert asked.hits == 1


def test_an_answer_from_memory_is_the_answer_from_the_store(keeping: Gateway) -> None:
    path = stored(keeping, 41)
    first, second = (keeping.http.get(path) for _ in range(2))
    assert second.content == first.content == BYTES
    assert {**second.headers, "date": ""} == {**first.headers, "date": ""}
    assert keeping.http.get(f"{path}?download").headers["content-disposition"] == 'attachment; filename="a.webp"'
    assert keeping.http.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304


def test_a_picture_in_memory_is_gone_when_its_row_is(keeping: Gateway) -> None:
    path = stored(keeping, 42)
    for _ in range(2):
        assert keeping.http.get(path).content == BYTES
    with keeping.database.begin() as session:
        image = images.by_key(session, key_of(42))
        assert image is not None
        image.state = ImageState.DELETING
    wait_for(lambda: keeping.http.get(path).status_code == 404, what="the end of the kept row")


def test_a_remade_picture_replaces_the_one_in_memory(keeping: Gateway) -> None:
    path, new = stored(keeping, 43), key_of(43).replace(".jpg", "-1.webp")
    assert keeping.http.get(path).content == BYTES
    Storage(keeping.settings).put_bytes(keeping.settings.s3_bucket, new, BYTES[::-1])
    with keeping.database.begin() as session:
        image = images.by_key(session, key_of(43))
        assert image is not None
        image.remakes = 1
    wait_for(lambda: keeping.http.get(path).content == BYTES[::-1], what="the end of the kept row")


def test_a_picture_in_memory_is_for_its_owner_alone(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(media_mode="proxy", media_access="owner", media_keys=KEYS)
    path = stored(gateway, 44)
    for _ in range(2):
        assert gateway.http.get(path, headers=auth()).content == BYTES
        assert gateway.http.get(path, headers=auth(token(STRANGER))).status_code == 404
        assert gateway.http.get(path).status_code == 404


@pytest.mark.parametrize("settings", [{"public_url": "https://cdn.example"}, {}], ids=str)
def test_an_object_that_a_remake_overwrites_is_not_kept_in_memory(
    gateways: Callable[..., Gateway], settings: dict[str, str]
) -> None:
    """Also after `DREAM_PUBLIC_URL` was unset: the row has its URL for ever."""
    gateway = gateways(media_mode="proxy", **settings)
    path = stored(gateway, 45)
    with gateway.database.begin() as session:
        image = images.by_key(session, key_of(45))
        assert image is not None
        image.url = f"https://cdn.example/{key_of(45)}"
    before = gateway.http.get(path)
    assert before.content == BYTES
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, key_of(45), BYTES[::-1])
    assert gateway.http.get(path).content == BYTES[::-1]
    with gateway.database.begin() as session:
        image = images.by_key(session, key_of(45))
        assert image is not None
        image.made_at = now()
    wait_for(lambda: gateway.http.get(path).headers["etag"] != before.headers["etag"], what="the end of the kept row")


@pytest.mark.slow
def test_slow_readers_of_many_pictures_do_not_fill_more_than_the_memory(keeping: Gateway) -> None:
    """Eleven pictures fit. Each of the others is read from the store piece by piece, and all come whole."""
    paths = [stored(keeping, number, data=BYTES) for number in range(50, 90)]
    before = rss_bytes(keeping)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in paths]
        for client, path in zip(clients, paths, strict=True):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before the connection, or it has no effect
            client.connect(("127.0.0.1", keeping.port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert rss_bytes(keeping) - before < 8_000_000 + len(paths) * 700_000
        for client in clients:
            with client.makefile("rb") as answer:
                assert answer.read().endswith(BYTES[-100_000:])


# --- rows that are kept


def test_a_picture_that_is_deleted_here_is_gone_at_once_although_its_row_was_kept(proxying: Gateway) -> None:
    path = stored(proxying, 17)
    assert proxying.http.get(path).status_code == 200
    (listed,) = proxying.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    deletion = proxying.http.delete(f"/api/dreams/{DREAM}/images/{listed['id']}", headers=auth())
    assert deletion.status_code == 202
    assert proxying.http.get(path).status_code == 404


def test_a_picture_that_is_deleted_elsewhere_is_gone_within_the_forget_time(gateways: Callable[..., Gateway]) -> None:
    """Kept row and kept answer together: an answer says only the rest of the time."""
    gateway = gateways(media_forget_s="2")
    path = stored(gateway, 18)
    assert gateway.http.get(path).status_code == 302
    with gateway.database.begin() as session:
        image = images.by_key(session, key_of(18))
        assert image is not None
        image.state = ImageState.DELETING
    deleted_at = time.monotonic()
    kept_until = [deleted_at]

    def is_gone() -> bool:
        asked_at = time.monotonic()
        answer = gateway.http.get(path)
        if answer.status_code == 302:
            kept_until.append(asked_at + int(answer.headers["cache-control"].removeprefix("private, max-age=")))
        return answer.status_code == 404

    wait_for(is_gone, what="the end of the kept row")
    assert max(kept_until) - deleted_at <= 2 + 1  # whole seconds, rounded up


def test_without_a_forget_time_no_row_is_kept(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(media_mode="proxy", media_forget_s="0")
    path = stored(gateway, 19)
    answer = gateway.http.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    with gateway.database.begin() as session:
        image = images.by_key(session, key_of(19))
        assert image is not None
        image.state = ImageState.DELETING
    assert gateway.http.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 404


# --- signed


def url_of(gateway: Gateway, path: str, **how: Any) -> str:
    """The path with a signature."""
    signed = urlsplit(sign_with(gateway.settings, f"{gateway.settings.gateway_url}{path}", **how))
    return f"{signed.path}?{signed.query}"


def test_a_signed_url_shows_a_picture_and_a_cdn_may_keep_it_until_its_end(signing: Gateway) -> None:
    path = stored(signing, 20)
    answer = signing.http.get(url_of(signing, path, ttl_s=60))
    assert (answer.status_code, answer.content) == (200, BYTES)
    kind, _, kept_s = answer.headers["cache-control"].partition(", max-age=")
    assert kind == "public"
    assert 58 <= int(kept_s) <= 91
    assert signing.http.head(url_of(signing, path)).status_code == 200
    assert signing.http.get(url_of(signing, path) + "&download").headers["content-disposition"]


def refusal(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client learns from an answer."""
    return answer.status_code, answer.content, {k: v for k, v in answer.headers.items() if k != "date"}


def test_a_refused_request_learns_nothing_of_the_picture(signing: Gateway) -> None:
    """A picture that is there and one that is not give the same answer, byte for byte, for every wrong signature."""
    there, missing = stored(signing, 21), f"/media/{key_of(999)}"
    expected = refusal(signing.http.get(url_of(signing, missing)))
    assert expected[0] == 404
    past = sign_with(signing.settings, f"http://x{there}", now=1.0).partition("?")[2]
    for query in ("", "?", "?exp=1&signature=x", f"?{past}", url_of(signing, missing).partition("?")[2]):
        for headers in ({}, auth(), {"If-None-Match": "*"}, {"Range": "bytes=0-1"}):
            assert refusal(signing.http.get(f"{there}?{query}", headers=headers)) == expected


def test_a_url_that_is_signed_for_a_user_needs_his_token(signing: Gateway) -> None:
    path = url_of(signing, stored(signing, 22), user_id=OWNER)
    for headers in ({}, auth(token(STRANGER)), auth("x.y.z"), auth(token(OWNER, lasts_s=-5))):
        assert signing.http.get(path, headers=headers).status_code == 404
    answer = signing.http.get(path, headers=auth())
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private, ")
    assert answer.headers["vary"] == "Authorization, Cookie"


def test_lists_have_signed_urls_beside_the_canonical_ones(signing: Gateway) -> None:
    path = stored(signing, 23)
    signing.add_image(ImageState.PENDING, number=24)
    ready, waiting = signing.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert ready["url"] == f"{signing.settings.media_url}/{key_of(23)}"
    signed = urlsplit(ready["signed_url"])
    assert f"{signed.path}" == path
    assert signing.http.get(f"{signed.path}?{signed.query}").content == BYTES
    assert waiting["signed_url"] is None


# --- owner


def test_only_the_owner_of_the_dream_sees_its_pictures(owning: Gateway) -> None:
    his, other = stored(owning, 30), stored(owning, 31, dream_id=OTHER_DREAM)
    missing = refusal(owning.http.get(f"/media/{key_of(999)}", headers=auth()))
    assert missing[0] == 404
    answer = owning.http.get(his, headers=auth())
    assert answer.status_code == 302
    assert answer.headers["vary"] == "Authorization, Cookie"
    assert httpx.get(answer.headers["location"]).content == BYTES
    for headers in ({}, auth(token(STRANGER)), auth("x.y.z"), auth(token(lasts_s=-5)), {"Cookie": f"{COOKIE}=1.2..x"}):
        assert refusal(owning.http.get(his, headers=headers)) == missing
    assert refusal(owning.http.get(other, headers=auth())) == missing


def test_a_browser_gets_a_cookie_for_its_token(owning: Gateway) -> None:
    path = stored(owning, 32)
    answer = owning.http.post("/api/auth/media-cookie", headers=auth(token(lasts_s=50)))
    assert (answer.status_code, answer.content) == (204, b"")
    value, *attributes = answer.headers["set-cookie"].split("; ")
    assert {each.lower() for each in attributes} >= {"httponly", "path=/app/media", "samesite=lax", "secure"}
    (lasts,) = (int(each.partition("=")[2]) for each in attributes if each.startswith("Max-Age="))
    assert 40 <= lasts <= 50
    assert owning.http.get(path, headers={"Cookie": value}).status_code == 302
    assert owning.http.get(path, headers={"Cookie": value[:-1]}).status_code == 404
    owning.http.cookies.clear()


def test_a_revoked_token_gives_no_cookie_and_ends_the_one_it_gave(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(media_access="owner", media_keys=KEYS, media_forget_s="0")
    path, own = stored(gateway, 33), auth(token(jti="one"))
    given = gateway.http.post("/api/auth/media-cookie", headers=own).headers["set-cookie"].partition(";")[0]
    gateway.http.cookies.clear()
    assert gateway.http.get(path, headers={"Cookie": given}).status_code == 302
    log_out = gateway.http.post("/api/auth/logout", headers=own)
    assert log_out.status_code == 204
    assert "Max-Age=0" in log_out.headers["set-cookie"]
    gateway.http.cookies.clear()
    assert gateway.http.get(path, headers={"Cookie": given}).status_code == 404
    assert gateway.http.get(path, headers=own).status_code == 404
    assert gateway.http.post("/api/auth/media-cookie", headers=own).status_code == 401


def test_a_cookie_is_for_sites_that_need_one(proxying: Gateway, owning: Gateway) -> None:
    assert proxying.http.post("/api/auth/media-cookie", headers=auth()).status_code == 404
    assert owning.http.post("/api/auth/media-cookie").status_code == 401


def test_a_dream_that_changes_hands_changes_its_viewers(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(media_access="owner", media_keys=KEYS, media_forget_s="0")
    path = stored(gateway, 34)
    assert gateway.http.get(path, headers=auth(token(STRANGER))).status_code == 404
    with gateway.database.begin() as session:
        give_to(session, DREAM, STRANGER, "sam")
    assert gateway.http.get(path, headers=auth(token(STRANGER))).status_code == 302
    assert gateway.http.get(path, headers=auth()).status_code == 404


# --- downloads by redirect


def test_a_download_by_redirect_has_its_name_from_the_store(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(media_forget_s="2")
    path = stored(gateway, 35, filename="日本.jpg")
    answer = httpx.get(gateway.http.get(f"{path}?download").headers["location"])
    assert answer.content == BYTES
    assert "filename*=UTF-8''%E6%97%A5%E6%9C%AC.webp" in answer.headers["content-disposition"]
    assert "content-disposition" not in httpx.get(gateway.http.get(path).headers["location"]).headers

"""The gateway under connections that say nothing, say it slowly, do not read, or are too many."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import wait_for
from tests.gateway import DREAM, SECRET, Gateway, auth, closing_code, emptied, receive, running, token

HANDSHAKE = (
    "GET /ws/dream-images/{dream}/?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def plug(gateway: Gateway, said: bytes = b"", *, source: str = "127.0.0.1") -> socket.socket:
    """A connection that says something, and nothing more."""
    raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=20, source_address=(source, 0))
    raw.sendall(said)
    return raw


def is_cut(raw: socket.socket) -> bool:
    """Whether the gateway has ended the connection."""
    raw.setblocking(False)
    try:
        while data := raw.recv(65536):
            assert data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def answer(raw: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    said = b""
    with suppress(OSError):
        while data := raw.recv(65536):
            said += data
    return said


def memory_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def crowd(gateway: Gateway, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(plug(gateway, said)) for _ in range(count)]


@pytest.fixture(scope="module")
def hasty(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    limits = {"DREAM_JWT_SECRET": SECRET, "DREAM_HEAD_TIMEOUT_S": "1", "DREAM_BODY_TIMEOUT_S": "1"}
    with running(tmp_path_factory.mktemp("hasty"), servers, **limits) as gateway:
        yield gateway


@pytest.fixture
def impatient(hasty: Gateway) -> Gateway:
    return emptied(hasty)


@pytest.mark.slow
def test_a_thousand_idle_connections_stop_nobody(start: Callable[..., Gateway]) -> None:
    """They are more than the gateway takes; it answers all the while, cuts them in time, and its log stays small."""
    with start(max_connections="300", head_timeout_s="2") as gateway, crowd(gateway, 1000, b"GET / HT") as idle:
        for _ in range(20):
            assert httpx.get(f"http://127.0.0.1:{gateway.port}/healthz", timeout=5).status_code == 200
        listed = httpx.get(f"http://127.0.0.1:{gateway.port}/api/dreams/{DREAM}/images", headers=auth(), timeout=5)
        assert listed.status_code == 200
        wait_for(lambda: all(is_cut(each) for each in idle), 20, "the end of the idle connections")
        assert gateway.http.get("/healthz").status_code == 200
        assert gateway.log.stat().st_size < 50_000


@pytest.mark.slow
def test_a_head_has_its_time(impatient: Gateway) -> None:
    """Clients send nothing, a part of a line, a head without end, or half a handshake."""
    heads = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", HANDSHAKE[:60].encode()]
    began = time.monotonic()
    with ExitStack() as stack:
        silent, *others = [stack.enter_context(plug(impatient, said)) for said in heads]
        assert answer(silent) == b""
        for raw in others:
            assert answer(raw).startswith(b"HTTP/1.1 408 ")
            assert 0.8 < time.monotonic() - began < 8


def test_a_head_that_drips_has_no_more_time(impatient: Gateway) -> None:
    """Also on a connection that has had an answer before."""
    with plug(impatient, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
        assert b"200 OK" in raw.recv(65536)
        began = time.monotonic()
        head = iter(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1000)

        def drip() -> bool:
            with suppress(OSError):
                raw.send(bytes([next(head)]))
            return is_cut(raw)

        wait_for(drip, 15, "the cut")
    assert time.monotonic() - began < 8


LARGEST_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: %b\r\n\r\n"
LARGEST_HEAD %= b"x" * (16 * 1024 - len(LARGEST_HEAD) + 2)
CHUNKED = b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("step", [10**6, 5000, 1], ids=["at once", "in parts", "byte by byte"])
def test_a_head_has_16_kib_however_it_arrives(gateway: Gateway, step: int) -> None:
    """One byte more is refused by one answer; also in the second request, in trailers, and in a chunk's extension."""

    def say(said: bytes) -> bytes:
        with plug(gateway) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError):
                for start in range(0, len(said), step):
                    raw.sendall(said[start : start + step])
            return answer(raw)

    assert say(LARGEST_HEAD).startswith(b"HTTP/1.1 200 ")
    larger = LARGEST_HEAD.replace(b"X: ", b"X: x")
    for said in (larger, larger.replace(b"x" * 5000, b"x" * (40_000 if step > 1 else 5100))):
        refused = say(said)
        assert refused.startswith(b"HTTP/1.1 431 ")
        assert refused.count(b"HTTP/1.1 ") == 1
    if step > 1:
        second = say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + larger)
        assert [part[:3] for part in second.split(b"HTTP/1.1 ")] == [b"", b"200", b"431"]
        for rest in (b"0\r\nX: " + b"x" * 99_000, b"1;x=" + b"x" * 99_000):
            assert b"HTTP/1.1 431 " in say(CHUNKED + rest)


@pytest.mark.slow
def test_an_idle_connection_ends_after_its_answer(impatient: Gateway) -> None:
    with plug(impatient, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as raw:
        assert answer(raw).endswith(b'{"status":"ok"}')


def upload_head(length: int, extra: str = "") -> bytes:
    head = (
        f"POST /api/dreams/{DREAM}/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n{extra}\r\n"
    )
    return head.encode()


def test_a_body_that_trickles_is_cut(impatient: Gateway) -> None:
    """A byte now and then keeps no connection; the client is told why, and the log has no traceback."""
    start = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'
    with plug(impatient, upload_head(10_000) + start) as raw:
        raw.settimeout(0.05)
        said = b""

        def trickle() -> bool:
            nonlocal said
            with suppress(TimeoutError, ConnectionError):
                raw.send(b"-")
                said += raw.recv(65536)
            return b"too slowly" in said

        wait_for(trickle, 15, "the cut")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert "Traceback" not in impatient.log.read_text()


def test_an_honest_slow_upload_goes_through(impatient: Gateway) -> None:
    """A client that keeps sending, as phones do, may take longer: 3 s for 6 KB, with a limit of 1 s."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n' + b"x" * 6_000 + b"\r\n--b--\r\n"
    )
    with plug(impatient, upload_head(len(form), "Connection: close\r\n")) as raw:
        began = time.monotonic()
        for start in range(0, len(form), 512):
            raw.sendall(form[start : start + 512])
            wait_for(lambda at=start: time.monotonic() - began > at / 2048)
        assert answer(raw).startswith(b"HTTP/1.1 202 ")
    assert time.monotonic() - began > 2.5


@pytest.mark.slow
def test_the_rest_of_a_body_that_nobody_wants_keeps_no_connection(impatient: Gateway) -> None:
    """Neither after an answer nor after an error."""
    with ExitStack() as stack:
        heads = [
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" for path in ("/healthz", "/nowhere")
        ]
        raws = [stack.enter_context(plug(impatient, head.encode())) for head in heads]
        began = time.monotonic()

        def trickle() -> bool:
            for raw in raws:
                with suppress(OSError):
                    raw.send(b"-")
            return sum(map(is_cut, raws)) == len(raws)

        wait_for(trickle, 30, "the cut")
    assert time.monotonic() - began < 20


def test_a_client_that_goes_away_in_its_upload_leaves_no_traceback(gateway: Gateway) -> None:
    before = gateway.log.stat().st_size
    with plug(gateway, upload_head(10_000)) as raw:
        raw.sendall(b"--b\r\n")
    wait_for(lambda: '"POST"' in gateway.log.read_text()[before:], what="the line of the request")
    assert "Traceback" not in gateway.log.read_text()[before:]


def test_an_address_has_its_share_and_another_gets_in(start: Callable[..., Gateway]) -> None:
    """An address that is full gets 429, and `/healthz`; who waits for nothing makes room for who asks."""
    with start(max_connections_per_address="3") as gateway, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(gateway.watching())
        address = f"http://127.0.0.1:{gateway.port}"
        refused = httpx.get(f"{address}/api/dreams/{DREAM}/images", headers=auth())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert "this address" in refused.json()["error"]
        assert httpx.get(f"{address}/healthz").status_code == 200
        with plug(gateway, HANDSHAKE.format(dream=DREAM, query=f"token={token()}").encode()) as raw:
            assert answer(raw).startswith(b"HTTP/1.1 429 ")
        with plug(gateway, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", source="127.0.0.2") as raw:
            assert answer(raw).startswith(b"HTTP/1.1 200 ")


def test_a_full_house_answers_its_health(start: Callable[..., Gateway]) -> None:
    with (
        start(max_connections="4", max_connections_per_address="4", max_sockets_per_user="4") as gateway,
        gateway.watching(),
        gateway.watching(),
        gateway.watching(),
        gateway.watching(),
    ):
        for source, status in (("127.0.0.1", b"429"), ("127.0.0.2", b"503")):
            with plug(gateway, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", source=source) as raw:
                assert answer(raw).startswith(b"HTTP/1.1 " + status)
            with plug(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", source=source) as raw:
                assert answer(raw).startswith(b"HTTP/1.1 200 ")


def test_sockets_without_a_token_make_room(start: Callable[..., Gateway]) -> None:
    """A handshake alone keeps no place from those who have a token."""
    bare = HANDSHAKE.format(dream=DREAM, query="").encode()
    with start(max_connections="20") as gateway, crowd(gateway, 40, bare), gateway.watching() as websocket:
        gateway.publish()
        assert receive(websocket)["type"] == "image_update"


def test_a_trusted_proxy_is_many_and_its_clients_have_their_caps(start: Callable[..., Gateway]) -> None:
    """Behind it each address of X-Forwarded-For has a share, IPv6 by /64; what a client writes there is not read."""
    with start(max_connections_per_address="2", trusted_proxies="127.0.0.0/30") as gateway, ExitStack() as stack:

        def watch(client: str) -> int | None:
            how = {"additional_headers": {"X-Forwarded-For": client}}
            websocket = stack.enter_context(gateway.socket(f"?token={token()}", **how))
            try:
                message = json.loads(websocket.recv(timeout=20))
            except ConnectionClosed:
                return websocket.close_code
            assert message["type"] == "connection_established"
            return None

        assert [watch("203.0.113.5") for _ in range(3)] == [None, None, 1013]
        assert [watch("198.51.100.1, 203.0.113.6") for _ in range(2)] == [None, None]
        assert watch("198.51.100.2, 203.0.113.6") == 1013
        assert [watch(f"2001:db8::{n}") for n in range(3)] == [None, None, 1013]
        assert watch("2001:db8:0:1::1") is None
        headers = {"X-Forwarded-For": "203.0.113.5", **auth()}
        assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=headers).status_code == 429
        assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).status_code == 200


def test_a_proxy_that_is_not_trusted_is_one_address(start: Callable[..., Gateway]) -> None:
    """Anybody can write X-Forwarded-For; the log says once what to do where it is a proxy."""
    with start(max_connections_per_address="2") as gateway, ExitStack() as stack:
        for client in ("203.0.113.5", "203.0.113.6"):
            stack.enter_context(gateway.watching(additional_headers={"X-Forwarded-For": client}))
        headers = {"X-Forwarded-For": "203.0.113.7", **auth()}
        refused = httpx.get(f"http://127.0.0.1:{gateway.port}/api/dreams/{DREAM}/images", headers=headers)
        assert refused.status_code == 429
        assert gateway.log.read_text().count("DREAM_TRUSTED_PROXIES") == 1


def test_no_file_left_is_told_once_and_passes(start: Callable[..., Gateway]) -> None:
    """While no connection can be accepted, the log does not fill; afterwards they are served."""
    with start() as gateway:
        limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        assert limits[0] == min(limits[1], 65536)
        open_files = len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (open_files + 5, limits[1]))
        with crowd(gateway, 40, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as raws:
            wait_for(lambda: "accept_failed" in gateway.log.read_text())
            told_at = time.monotonic()
            wait_for(lambda: time.monotonic() - told_at > 2.5)  # asyncio tries again every second
            assert gateway.log.read_text().count("accept_failed") == 1
            resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, limits)
            assert all(b"200 OK" in each.recv(65536) for each in raws)
        assert "Traceback" not in gateway.log.read_text()


def frames(opcode: int, count: int, data: bytes = b"") -> bytes:
    """Masked frames, as clients send them."""
    return (bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data) * count


@pytest.mark.parametrize("query", ["", f"token={token(lasts_s=600)}"], ids=["no token", "token"])
@pytest.mark.parametrize(
    "flood",
    [
        frames(0x9, 500, b"x" * 125),
        frames(0xA, 500, b"x" * 125),
        frames(0x8, 500, b"\x03\xe8" + b"x" * 100),
        frames(0x1, 500, b'{"type":"ping"}'),
        frames(0x1, 500, b'{"type":"request_status"}'),
        bytes([0x01, 0x80, 0, 0, 0, 0]) + bytes([0x00, 0x80, 0, 0, 0, 0]) * 10_000,
    ],
    ids=["pings", "pongs", "closes", "messages", "requests", "empty parts"],
)
def test_frames_whose_answers_nobody_reads_take_no_memory(gateway: Gateway, query: str, flood: bytes) -> None:
    """A client that does not read is not read either, or cut: 50 MB of frames leave the process as large as before."""
    before, logged = memory_bytes(gateway), gateway.log.stat().st_size
    with plug(gateway, HANDSHAKE.format(dream=DREAM, query=query).encode()) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(1)
        sent = 0
        with suppress(OSError):
            while sent < 50_000_000:
                sent += raw.send(flood)
        assert memory_bytes(gateway) - before < 16 * 2**20
        assert gateway.http.get("/healthz").status_code == 200
    assert "Traceback" not in gateway.log.read_text()[logged:]


def test_pipelined_requests_whose_answers_nobody_reads_take_no_memory(gateway: Gateway) -> None:
    """Of 100 connections, whether they send on or not."""
    before = memory_bytes(gateway)
    flood = b"GET /static/page.js HTTP/1.1\r\nHost: x\r\n\r\n" * 5000
    with crowd(gateway, 100, b"") as raws:
        for raw in raws:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
        sent, began = 0, time.monotonic()
        while sent < 50_000_000 and time.monotonic() - began < 3:
            for raw in raws:
                with suppress(OSError):
                    sent += raw.send(flood)
        assert gateway.http.get("/healthz").status_code == 200
        assert memory_bytes(gateway) - before < 16 * 2**20


def test_an_honest_pipeline_is_answered(gateway: Gateway) -> None:
    """Each request has its answer, in their order."""
    said = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200 + b"GET /nowhere HTTP/1.0\r\n\r\n"
    with plug(gateway, said) as raw:
        answers = answer(raw)
    assert answers.count(b'{"status":"ok"}') == 200
    assert b"404" in answers[answers.rindex(b"HTTP/1.1 ") :]


@pytest.mark.slow
def test_too_many_frames_close_with_4008_and_a_reason(gateway: Gateway) -> None:
    """Control frames and messages have each a bound; an honest client's pings are answered."""
    with gateway.watching() as websocket:
        for _ in range(50):
            assert websocket.ping().wait(10)
        for _ in range(700):
            with suppress(ConnectionClosed):
                websocket.ping()
        assert closing_code(websocket) == 4008
    with gateway.watching() as websocket:
        for _ in range(200):
            with suppress(ConnectionClosed):
                websocket.send('{"type": "ping"}')
        assert closing_code(websocket) == 4008
        assert "too many messages" in (websocket.close_reason or "")

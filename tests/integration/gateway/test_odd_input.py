"""Odd input of strangers, by HTTP or WebSocket: no 500, no traceback, no dead process. Seeded, and bounded."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator

import pytest

from dream.messages.states import ImageState
from tests.gateway import DREAM, Gateway, auth, token
from tests.integration.gateway.test_crowds import HANDSHAKE, answer, plug

IDS = [
    "0",
    "-1",
    "7",
    "007",
    str(2**63 - 1),
    str(2**63),
    "9" * 19,
    "9" * 20,
    "9" * 5000,
    "x",
    "7%00",
    "%ef%bf%bd",
    "٧",
    "1.5",
]
PATHS = [
    *(f"/api/dreams/{each}/images" for each in IDS),
    *(f"/api/dreams/{DREAM}/images/{each}" for each in IDS),
    *(f"/media/{each}" for each in ("", "%00", "%ff", "../x", "dreams/20260101/" + "0" * 32 + ".jpg%00", "x" * 8000)),
    *(
        f"/static/{each}"
        for each in ("%00", "%ff", "..%2f..%2fserver.py", "x" * 5000, "a/" * 2000, "page.js/", "%ed%a0%80")
    ),
    *("/", "//", "/%00", "*", "http://x/healthz", "/healthz/", "/readyz?%00", "/?" + "&" * 5000, "/api/auth/logout"),
]


@pytest.fixture(autouse=True)
def _no_traceback(gateway: Gateway) -> Iterator[None]:
    before = gateway.log.stat().st_size
    yield
    assert gateway.process.poll() is None
    assert gateway.http.get("/healthz").status_code == 200
    said = gateway.log.read_text()[before:]
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:4000]
    assert '"status": 500' not in said


def seeds(count: int) -> list[int]:
    """More of them by `DREAM_TEST_FUZZ`."""
    return list(range(count * int(os.environ.get("DREAM_TEST_FUZZ", "1"))))


def say(gateway: Gateway, said: bytes, *, wait_s: float = 20) -> bytes:
    """Send it, say no more, and return what comes until the end, or until nothing has come for a while."""
    with plug(gateway) as raw:
        raw.settimeout(wait_s)
        with contextlib.suppress(OSError):
            raw.sendall(said)
        return answer(raw)


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_odd_addresses(gateway: Gateway, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "X" * 40):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\nConnection: close\r\n\r\n"
        assert 200 <= status_of(say(gateway, head.encode())) < 500, method


@pytest.mark.parametrize("dream_id", IDS, ids=lambda each: each[:30])
@pytest.mark.slow
def test_odd_dreams_of_sockets(gateway: Gateway, dream_id: str) -> None:
    for query in (f"token={token()}", f"token={token()}&since=%00", "token=%00", "token=%ff%ed%a0%80", ""):
        said = say(gateway, HANDSHAKE.format(dream=dream_id, query=query).encode(), wait_s=0.2)
        assert status_of(said) in (101, 400, 403, 404), said[:200]


HEADERS = [
    "Host: [\r\n",
    "Host: \r\n",
    "Host: x:99999999\r\n",
    "Host: \xff\xfe\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 99999999999999999999999\r\n",
    "Content-Length: 5, 6\r\n",
    "Content-Length: x\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: nonsense\r\n",
    "Content-Type: multipart/form-data; boundary=\xff\r\n",
    "Content-Type: multipart/form-data; boundary=" + "b" * 5000 + "\r\n",
    "Content-Type: multipart/form-data; boundary*=utf-8''%00\r\n",
    "Content-Type: \x01\r\n",
    "Expect: 100-continue\r\nContent-Length: 5\r\n",
    "Range: bytes=99-1,x\r\n",
    "If-Modified-Since: yesterday\r\n",
    "If-None-Match: \xff\r\n",
    "Cookie: \xff=\xff\r\n",
    "Authorization: Bearer \xff\r\n",
    "X-Forwarded-For: \xff, , [::1\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 12\r\n",
    "".join(f"X-{n}: y\r\n" for n in range(300)),
    "Upgrade: websocket\r\nConnection: Upgrade\r\n" + "".join(f"X-{n}: y\r\n" for n in range(300)),
    "Upgrade: websocket\r\nConnection: Upgrade\r\nX: " + "y" * 9000 + "\r\n",
    "X: " + "y" * 20_000 + "\r\n",
    "no colon\r\n",
    " folded: x\r\n",
    "X:\0\r\n",
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:40].strip().encode("unicode_escape").decode())
def test_odd_headers(gateway: Gateway, header: str) -> None:
    own = "" if "Authorization" in header else f"Authorization: Bearer {token()}\r\n"
    host = "" if "Host" in header else "Host: x\r\n"
    for line in (f"GET /api/dreams/{DREAM}/images", f"POST /api/dreams/{DREAM}/images", "GET /static/page.js", "GET /"):
        said = say(
            gateway,
            f"{line} HTTP/1.1\r\n{host}{own}{header}Connection: close\r\n\r\n12345".encode("latin-1"),
            wait_s=1,
        )
        assert status_of(said) < 500, said[:300]
    handshake = HANDSHAKE.format(dream=DREAM, query="").replace("Host: x\r\n", host + header)
    said = say(gateway, handshake.encode("latin-1"), wait_s=0.2)
    assert status_of(said) < 500, said[:300]


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", "Content-Length: 5\r\n"),
        ("", "Transfer-Encoding: chunked\r\n"),
        ("token=" + "x" * 9000, ""),
        ("", "X: y\r\n" * 200),
    ],
    ids=["body", "chunks", "long line", "many headers"],
)
def test_a_handshake_that_is_none_is_answered_and_ends(gateway: Gateway, query: str, header: str) -> None:
    """No connection waits for ever for a handshake that cannot be understood."""
    handshake = HANDSHAKE.format(dream=DREAM, query=query).replace("Host: x\r\n", "Host: x\r\n" + header)
    with plug(gateway, handshake.encode()) as raw:
        said = b""
        while data := raw.recv(65536):  # a time-out fails
            said += data
    assert status_of(said) in (400, 431), said


def test_no_socket_opens_while_another_request_of_the_connection_runs(gateway: Gateway) -> None:
    """Else the answer to that request would come between the frames. The heads come in one read, cut at 4 KiB."""
    first = b"GET /readyz HTTP/1.1\r\nX: "
    first += b"x" * (4096 - len(first) - 3) + b"\r\n\r"
    last = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    said = say(gateway, first + b"\n" + HANDSHAKE.format(dream=DREAM, query=f"token={token()}").encode() + last)
    assert [status_of(b"HTTP/1.1 " + part) for part in said.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200], said


PART = b'Content-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b"--b\r\n" + PART % (b"a\0b.jpg", b"x") + b"--b--\r\n",
        b"--b\r\n" + PART % (b"\xff\xfe.jpg", b"x") + b"--b--\r\n",
        b"--b\r\n" + PART % (b"\xed\xa0\x80.jpg", b"x") + b"--b--\r\n",
        b"--b\r\n" + PART % (b"n" * 5000, b"x") + b"--b--\r\n",
        b"--b\r\n" + PART % (b"../../../etc/passwd", b"x") + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n' + b"[" * 50_000 + b"\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n' + b"9" * 9000 + b"\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n[1e999, NaN]\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n\xff\0\r\n--b--\r\n',
        b"--b\r\nContent-Disposition: nonsense\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nX" * 3000,
        b"\0" * 1000,
    ],
    ids=lambda body: body[:60].decode("latin-1").encode("unicode_escape").decode() or "nothing",
)
@pytest.mark.parametrize(
    "positions", [b"", b'--b\r\nContent-Disposition: form-data; name="positions"\r\n\r\n[[[1]]]\r\n']
)
def test_odd_forms(gateway: Gateway, body: bytes, positions: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b", **auth()}
    said = gateway.http.post(f"/api/dreams/{DREAM}/images", content=positions + body, headers=headers)
    assert said.status_code in (202, 400, 413, 422), said.text
    assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).status_code == 200


@pytest.mark.parametrize("seed", seeds(40))
@pytest.mark.slow
def test_heads_with_random_faults(gateway: Gateway, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        whole = chance.choice(
            [
                HANDSHAKE.format(dream=DREAM, query=f"token={token()}").encode(),
                f"GET /api/dreams/{DREAM}/images?limit=5 HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {token()}\r\n\r\n".encode(),
                b"POST /api/auth/logout HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n0\r\n\r\n",
            ]
        )
        said = bytearray(whole * chance.choice([1, 1, 1, 3]))
        for _ in range(chance.choice([1, 2, 5, 20])):
            place = chance.randrange(len(said))
            said[place : place + chance.choice([0, 1, 1, 4])] = chance.randbytes(chance.choice([0, 1, 1, 3]))
        assert status_of(say(gateway, bytes(said), wait_s=0.2)) != 500, bytes(said)


#: Requests with a body, and a right one of each.
BODIES = [
    ("PATCH", f"/api/dreams/{DREAM}/images", b'{"positions": [{"id": 1, "position": 3}, {"id": 2, "position": -4}]}'),
    ("PUT", f"/api/dreams/{DREAM}/images/1/focus", b'{"focus": [0.25, 0.75]}'),
    ("POST", f"/api/dreams/{DREAM}/uploads", b'{"files": [{"name": "a.jpg", "size": 3, "type": "image/jpeg"}]}'),
    ("POST", f"/api/dreams/{DREAM}/uploads/0f5c/complete", b""),
    ("POST", f"/api/dreams/{DREAM}/images/1/retry", b""),
    ("POST", f"/api/dreams/{DREAM}/images", b"--b\r\n" + PART % (b"a.jpg", b"\xff\xd8\xff\xd9") + b"--b--\r\n"),
]
#: Put into the place of some bytes.
ODD = [
    b"",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b'"',
    b"\\ud800",
    b"\0",
    b"\xff",
    b"[" * 500,
    b"{}",
    b"\r\n",
]


@pytest.mark.parametrize("seed", seeds(10))
def test_bodies_with_random_faults(gateway: Gateway, seed: int) -> None:
    """Bytes are cut, doubled, replaced, or replaced by values that such a place never has."""
    chance = random.Random(seed)
    for method, path, right in BODIES * 4:
        body = bytearray(right)
        for _ in range(chance.choice([1, 1, 2, 6])):
            start = chance.randrange(len(body) + 1)
            odd = chance.choice([*ODD, chance.randbytes(3), bytes(body[start : start + 20])])
            body[start : start + chance.choice([0, 1, 1, 5, 40])] = odd
        kind = "multipart/form-data; boundary=b" if b"--b" in right else "application/json"
        said = gateway.http.request(method, path, content=bytes(body), headers={"Content-Type": kind, **auth()})
        assert said.status_code < 500, (method, path, bytes(body))


def frame(chance: random.Random) -> bytes:
    """A frame that is right, or wrong in one of the ways there are."""
    texts = [
        b'{"type":"ping"}',
        b'{"type":"pong"}',
        b'{"type":"request_status"}',
        b'{"type":"authenticate","token":"\\ud800"}',
        b'{"type":"authenticate","token":{}}',
        b'{"type":"\\ud800\\u0000"}',
        b'{"type":["ping"]}',
        b'{"type":' + b"9" * 5000 + b"}",
        b'{"type":NaN}',
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b"\xff\xfe\xed\xa0\x80",
        b"\0",
        b"",
        json.dumps({"type": "x" * 60_000}).encode(),
        chance.randbytes(chance.randrange(200)),
    ]
    data = chance.choice(texts)
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 40))
    opcode = chance.choice([0x1, 0x1, 0x1, 0x2, 0x8, 0x9, 0xA, 0x0, 0x3, 0xB])
    first = opcode | chance.choice([0x80, 0x80, 0x80, 0x00, 0xC0])
    mask = chance.choice([0x80, 0x80, 0x80, 0x80, 0x00])
    if len(data) < 126:
        size = bytes([mask | len(data)])
    else:
        size = bytes([mask | 126]) + min(len(data), 65535).to_bytes(2, "big")
    return bytes([first]) + size + (bytes(4) if mask else b"") + data


@pytest.mark.parametrize("seed", seeds(60))
def test_frames_with_random_faults(gateway: Gateway, seed: int) -> None:
    """With a token and without, in one piece and in many."""
    chance = random.Random(seed)
    query = chance.choice(["", f"token={token()}"])
    if seed % 7 == 0:
        gateway.add_image(ImageState.COMPLETED)
    with plug(gateway, HANDSHAKE.format(dream=DREAM, query=query).encode()) as raw:
        assert b" 101 " in raw.recv(4096)
        said = b"".join(frame(chance) for _ in range(chance.randrange(1, 12)))
        with contextlib.suppress(OSError):
            while said:
                size = chance.choice([1, 7, 4096, 100_000])
                raw.sendall(said[:size])
                said = said[size:]
        raw.settimeout(0.2)
        answer(raw)

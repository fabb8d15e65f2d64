"""Requests a second of `/media/…`: redirects beside `/healthz`, and proxied pictures beside the store itself.

    python -m benchmarks.media [--rounds 5] [--seconds 3] [--slow 1000]

It needs the tests: they start an embedded store, and a gateway process for each mode. One process asks by kept
connections, 16 at once; the contenders take turns, and medians are shown. Beside the rates stands the processor time of
the gateway for one answer, which other work on the machine changes less. Proxied pictures are measured twice: from the
gateway's memory, into which all of them fit, and with `DREAM_MEDIA_MEMORY_BYTES=0` from the store. With `--slow` as
many clients stop reading in the middle of a picture, and the gateway's memory and its answers to others are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dream.db import images
from dream.stack import servers_only
from dream.storage import Storage
from tests.gateway import DREAM, KEY, Gateway, emptied, running

AT_ONCE = 16
PICTURES = 50
#: Bytes of a picture: the budget of a processed one, a typical one, a thumbnail.
SIZES = {"1 MiB": 2**20, "300 kB": 300_000, "20 kB": 20_000}
#: Of the picture that slow clients do not read: the kernel keeps megabytes for each of them.
_SLOW_BYTES = 16 * 2**20
_STORE = "the store itself"
_PROXIES = {"from memory": {}, "memory off": {"DREAM_MEDIA_MEMORY_BYTES": "0"}}


class Measured(NamedTuple):
    """The outcome of one turn.

    Parameters:
      per_s: answers a second.
      p99_ms: of the time from request to whole answer.
      mb_per_s: bytes of bodies.
      gateway_us: processor time of the gateway for each answer.
    """

    per_s: float
    p99_ms: float
    mb_per_s: float
    gateway_us: float


class Contender(NamedTuple):
    """The addresses that a turn asks.

    Parameters:
      gateway: its processor time is measured.
    """

    gateway: Gateway
    address: str
    paths: Sequence[str]


class _Client(asyncio.Protocol):
    """One kept connection: it asks for the next address when an answer is whole."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._head = b""
        self._left = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(self._turn.request())

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            lower = head.lower()
            status = int(head[9:12])
            assert status in (200, 302), head
            start = lower.find(b"content-length:")
            length = int(lower[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            self._left, self._length, self._head, data = length, length, b"", rest
        self._left -= len(data)
        if not self._left:
            self._left = -1
            if self._turn.note(time.perf_counter() - self._asked_at, self._length):
                self._ask()
            else:
                self._transport.abort()


class _Turn:
    def __init__(self, requests: Sequence[bytes], seconds: float) -> None:
        self._requests = requests
        self._next = 0
        self._until = time.perf_counter() + seconds
        self.took_s: list[float] = []
        self.body_bytes = 0

    def request(self) -> bytes:
        self._next = (self._next + 1) % len(self._requests)
        return self._requests[self._next]

    def note(self, took_s: float, length: int) -> bool:
        self.took_s.append(took_s)
        self.body_bytes += length
        return time.perf_counter() < self._until


def _processor_s(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _ask(gateway: Gateway, address: str, paths: Sequence[str], seconds: float) -> Measured:
    parts = urlsplit(address)
    requests = [f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() for path in paths]
    turn = _Turn(requests, seconds)
    began, before_s = time.perf_counter(), _processor_s(gateway)
    loop = asyncio.get_running_loop()
    ends = []

    class Client(_Client):
        def __init__(self) -> None:
            super().__init__(turn)
            self.end = loop.create_future()
            ends.append(self.end)

        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
            self.end.set_result(None)

    for _ in range(AT_ONCE):
        await loop.create_connection(Client, parts.hostname, parts.port)
    await asyncio.gather(*ends)
    took_s = time.perf_counter() - began
    p99_ms = statistics.quantiles(turn.took_s, n=100)[98] * 1e3
    count = len(turn.took_s)
    gateway_us = (_processor_s(gateway) - before_s) / count * 1e6
    return Measured(count / took_s, p99_ms, turn.body_bytes / took_s / 1e6, gateway_us)


def _stored(gateway: Gateway, size_bytes: int, count: int = PICTURES) -> list[str]:
    """Pictures of that size with rows and objects; returns their keys."""
    keys = [KEY.replace("0" * 32, f"{number:032x}") for number in range(1, count + 1)]
    source = gateway.log.parent / "picture"
    source.write_bytes(os.urandom(size_bytes))
    storage = Storage(gateway.settings)
    for number, key in enumerate(keys, 1):
        image_id = gateway.add_image(number=number)
        with gateway.database.begin() as session:
            image = images.by_id(session, DREAM, image_id)
            assert image is not None
            image.content_type, image.size_bytes = "image/jpeg", size_bytes
        storage.put_file(gateway.settings.s3_bucket, key, source, "image/jpeg")
    return keys


def _measured(contenders: Mapping[str, Contender], rounds: int, seconds: float) -> dict[str, Measured]:
    """The medians of each contender; one short round that does not count comes first."""
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            measured = asyncio.run(_ask(*contender, seconds if number else 0.5))
            if number:
                found[name].append(measured)
    return {name: Measured(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}


def _show(title: str, found: Mapping[str, Measured]) -> None:
    print(f"\n{title}")
    for name, each in found.items():
        print(
            f"  {name:<24} {each.per_s:>8,.0f} /s   p99 {each.p99_ms:>7.1f} ms   {each.mb_per_s:>7.1f} MB/s   "
            f"gateway {each.gateway_us:>6,.0f} µs each"
        )


def _store_of(gateway: Gateway, keys: Sequence[str]) -> Contender:
    """The objects of these keys, by presigned URLs."""
    storage, bucket = Storage(gateway.settings), gateway.settings.s3_bucket
    signed = [urlsplit(storage.presign(bucket, key)) for key in keys]
    return Contender(
        gateway, f"{signed[0].scheme}://{signed[0].netloc}", [f"{each.path}?{each.query}" for each in signed]
    )


@contextmanager
def _gateway(folder: Path, servers: dict[str, str], name: str, **changes: str) -> Iterator[Gateway]:
    (own := folder / name).mkdir()
    with running(own, servers, DREAM_LOG_FORMAT="json", DREAM_S3_ADDRESSING_STYLE="path", **changes) as gateway:
        yield emptied(gateway)


def _slow(gateway: Gateway, key: str, count: int) -> None:
    """Show what clients cost that stop reading, and what others notice."""
    address = f"http://127.0.0.1:{gateway.port}"
    before = _rss_mb(gateway)
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before the connection, or it has no effect
            client.connect(("127.0.0.1", gateway.port))
            client.sendall(f"GET /media/{key} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.recv(100)
        measured = asyncio.run(_ask(gateway, address, ["/healthz"], 1.0))
        cost_kb = (_rss_mb(gateway) - before) / count * 1e3
        print(
            f"\n{count} clients that do not read: {cost_kb:.0f} kB each; /healthz beside them {measured.per_s:,.0f} /s"
        )


def _rss_mb(gateway: Gateway) -> float:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--slow", type=int, default=0)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as place, servers_only(Path(place) / "servers") as environment:
        servers, folder = dict(environment), Path(place)
        with _gateway(folder, servers, "redirect") as gateway:
            keys = _stored(gateway, 5)
            address = f"http://127.0.0.1:{gateway.port}"
            contenders = {
                "/healthz": Contender(gateway, address, ["/healthz"]),
                "/media": Contender(gateway, address, [f"/media/{key}" for key in keys]),
            }
            _show("DREAM_MEDIA_MODE=redirect", _measured(contenders, given.rounds, given.seconds))
        for name, size_bytes in SIZES.items():
            with ExitStack() as stack:
                contenders = {}
                for title, changes in _PROXIES.items():
                    own = _gateway(folder, servers, f"{title} {name}", DREAM_MEDIA_MODE="proxy", **changes)
                    gateway = stack.enter_context(own)
                    paths = [f"/media/{key}" for key in _stored(gateway, size_bytes)]
                    contenders[title] = Contender(gateway, f"http://127.0.0.1:{gateway.port}", paths)
                contenders[_STORE] = _store_of(gateway, [path.removeprefix("/media/") for path in paths])
                found = _measured(contenders, given.rounds, given.seconds)
                _show(f"DREAM_MEDIA_MODE=proxy, pictures of {name}", found)
                for title in _PROXIES:
                    print(f"  share of the store, {title}: {found[title].per_s / found[_STORE].per_s:.2f}")
        if given.slow:
            with _gateway(folder, servers, "slow", DREAM_MEDIA_MODE="proxy") as gateway:
                _slow(gateway, _stored(gateway, _SLOW_BYTES, 1)[0], given.slow)


if __name__ == "__main__":
    main()

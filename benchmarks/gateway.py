"""The gateway's sockets at their limit, beside plain Starlette and Django Channels.

    python -m benchmarks.gateway [--rounds 3] [--sockets 1000] [--idle 3000] [--only memory,one,many,idle]

It needs the tests (they start an embedded Valkey and the gateway) and the bench group. Each contender is a process and
serves the same sockets with the same events through Redis. The contenders take turns, and medians of the rounds are
shown. The clients are one process more, which shares the machine with the servers: compare figures of one run only.

memory  resident memory for each idle socket, each on a dream of its own
one     one event to all sockets of a dream: the time until the last one has it
many    200 events a second to 100 sockets: lost deliveries, their delay, the server's processor time
idle    processor time of the server while nothing happens, in percent of a core
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import redis
import uvloop

from benchmarks.gateway_opponents import CHANNEL, channel_layers, group_of
from dream.db.dreams import give_to
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.stack import servers_only
from dream.stack.ports import choose
from tests.conftest import wait_for
from tests.gateway import OWNER, running, token

_FIRST_DREAM = 1000
_EVENTS_PER_S, _WATCHING = 200, 100
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Contender(NamedTuple):
    """A running server.

    Parameters:
      port: of 127.0.0.1.
      pid: of its one process.
      publish: sends an event to a dream.
      query: of a socket's address.
    """

    port: int
    pid: int
    publish: Callable[[ImageUpdate], object]
    query: str

    @property
    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    @property
    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


# --- the clients


class _Client(asyncio.Protocol):
    """A socket that notes when events come, and answers pings."""

    def __init__(self, crowd: _Crowd, path: str) -> None:
        self._crowd, self._path, self._data, self._is_open = crowd, path, b"", False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.time()
        data = self._data + data
        if not self._is_open:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self._data = data
                return
            assert b" 101 " in head, head
            self._is_open, data = True, rest
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if len(data) < at + 4:
                    break
                (size,), start = struct.unpack_from("!H", data, at + 2), at + 4
            if len(data) < start + size:
                break
            self._take(data[at], data[start : start + size], now)
            at = start + size
        self._data = data[at:]

    def _take(self, first: int, text: bytes, now: float) -> None:
        if first == 0x89:
            self._transport.write(bytes([0x8A, 0x80 | len(text), 0, 0, 0, 0]) + text)
        elif b'"image_update"' in text[:80]:
            self._crowd.took_s.append(now - float(text.partition(b'"timestamp":')[2].split(b",", 1)[0]))
        elif b"connection_established" in text:
            self._crowd.greeted += 1

    def connection_lost(self, _exc: Exception | None) -> None:
        self._crowd.lost += 1


class _Crowd:
    """All clients of a turn. It runs in a process of its own and is told what to do by a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.took_s: list[float] = []
        self.greeted = self.lost = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            order, *arguments = await loop.run_in_executor(None, self._pipe.recv)
            if order == "open":
                self._pipe.send(await self._open(*arguments))
            elif order == "wait":
                self._pipe.send(await self._wait(*arguments))
            else:
                return

    async def _open(self, port: int, paths: list[str]) -> int:
        loop = asyncio.get_running_loop()
        for start in range(0, len(paths), 50):
            some = paths[start : start + 50]
            await asyncio.gather(
                *(loop.create_connection(partial(_Client, self, each), "127.0.0.1", port) for each in some)
            )
            until = loop.time() + 60
            while self.greeted < start + len(some) and loop.time() < until:
                await asyncio.sleep(0.005)
        return self.greeted

    async def _wait(self, count: int, at_most_s: float) -> tuple[list[float], int]:
        """The delays of this many deliveries, or of those that came in time; and the number of lost sockets."""
        until = time.monotonic() + at_most_s
        while len(self.took_s) < count and time.monotonic() < until:
            await asyncio.sleep(0.002)
        took_s, self.took_s = self.took_s, []
        return took_s, self.lost


def _crowd_process(pipe: Connection) -> None:
    uvloop.run(_Crowd(pipe).run())


@contextmanager
def _crowd() -> Iterator[Connection]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_crowd_process, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours
        ours.send(("end",))
    finally:
        process.join(5)
        process.kill()


def _open(crowd: Connection, contender: Contender, dreams: list[int]) -> None:
    paths = [f"/ws/dream-images/{dream_id}/{contender.query}" for dream_id in dreams]
    crowd.send(("open", contender.port, paths))
    assert (opened := crowd.recv()) == len(dreams), f"{opened} of {len(dreams)} sockets were opened"


def _event(dream_id: int) -> ImageUpdate:
    return ImageUpdate(
        dream_id=dream_id,
        status=UpdateStatus.PROCESSING,
        progress=50,
        message="a picture is processed",
        task_id="t" * 32,
    )


# --- the servers


@contextmanager
def _dream(folder: Path, servers: dict[str, str], sockets: int) -> Iterator[Contender]:
    most = str(4 * sockets)
    limits = {
        f"DREAM_{name}": most for name in ("MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS", "MAX_SOCKETS_PER_USER")
    }
    with running(folder, servers, **limits) as gateway:
        with gateway.database.begin() as session:
            for dream_id in range(_FIRST_DREAM, _FIRST_DREAM + sockets):
                give_to(session, dream_id, OWNER, "olga")
        query = f"?token={token(lasts_s=7200, jti='benchmark')}"
        yield Contender(gateway.port, gateway.process.pid, gateway.publisher.publish, query)


@contextmanager
def _opponent(kind: str, servers: dict[str, str], publish: Callable[[ImageUpdate], object]) -> Iterator[Contender]:
    port = choose()
    command = [sys.executable, "-m", "benchmarks.gateway_opponents", kind, str(port), servers["DREAM_REDIS_URL"]]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: _answers(port) or process.poll() is not None, 30, f"the server {kind}")
        yield Contender(port, process.pid, publish, "")
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as raw:
        return raw.connect_ex(("127.0.0.1", port)) == 0


def _to_starlette(redis_url: str) -> Callable[[ImageUpdate], object]:
    client = redis.Redis.from_url(redis_url)
    return lambda event: client.publish(CHANNEL, json.dumps(event.as_message()))


def _to_channels(redis_url: str) -> Callable[[ImageUpdate], object]:
    from channels_redis.pubsub import RedisPubSubChannelLayer  # type: ignore[import-untyped]

    layer = RedisPubSubChannelLayer(**channel_layers(redis_url)["default"]["CONFIG"])
    loop = asyncio.new_event_loop()

    def publish(event: ImageUpdate) -> None:
        message = {"type": "image.update", "event": event.as_message()}
        loop.run_until_complete(layer.group_send(group_of(event.dream_id), message))

    return publish


# --- the rows


class _Rows:
    """The measurements; each returns its figures by name."""

    def __init__(self, sockets: int, idle: int, seconds: float) -> None:
        self._sockets, self._idle, self._seconds = sockets, idle, seconds

    def memory(self, contender: Contender) -> dict[str, float]:
        before = contender.rss_kib
        with _crowd() as crowd:
            _open(crowd, contender, list(range(_FIRST_DREAM, _FIRST_DREAM + self._sockets)))
            time.sleep(1)
            return {"KiB a socket": (contender.rss_kib - before) / self._sockets}

    def one(self, contender: Contender) -> dict[str, float]:
        lasts: list[float] = []
        with _crowd() as crowd:
            _open(crowd, contender, [_FIRST_DREAM] * self._sockets)
            for _ in range(40):
                contender.publish(_event(_FIRST_DREAM))
                crowd.send(("wait", self._sockets, 10.0))
                took_s, _lost = crowd.recv()
                lasts.append(max(took_s) * 1e3 if len(took_s) == self._sockets else 10_000.0)
                time.sleep(0.05)
        return {"median ms": statistics.median(lasts), "p99 ms": _p99(lasts)}

    def many(self, contender: Contender) -> dict[str, float]:
        count = int(_EVENTS_PER_S * self._seconds)
        with _crowd() as crowd:
            _open(crowd, contender, [_FIRST_DREAM] * _WATCHING)
            began, processor_s = time.monotonic(), contender.processor_s
            for number in range(count):
                contender.publish(_event(_FIRST_DREAM))
                time.sleep(max(0.0, began + (number + 1) / _EVENTS_PER_S - time.monotonic()))
            crowd.send(("wait", count * _WATCHING, 15.0))
            took_s, _lost = crowd.recv()
        lost = 100 * (1 - len(took_s) / (count * _WATCHING))
        used_s = contender.processor_s - processor_s
        return {"lost %": lost, "p99 ms": _p99([each * 1e3 for each in took_s]), "processor s": used_s}

    def idle(self, contender: Contender) -> dict[str, float]:
        with _crowd() as crowd:
            _open(crowd, contender, list(range(_FIRST_DREAM, _FIRST_DREAM + self._idle)))
            time.sleep(2)
            before, began = contender.processor_s, time.monotonic()
            time.sleep(self._seconds)
            return {"% of a core": 100 * (contender.processor_s - before) / (time.monotonic() - began)}


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


def _measured(
    contenders: Mapping[str, Callable[[], Any]], row: Callable[[Contender], dict[str, float]], rounds: int
) -> dict[str, dict[str, float]]:
    """The medians of each contender. A server is new in each round, so that it has no memory of the last."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, start in contenders.items():
            with start() as contender:
                found[name].append(row(contender))
    return {
        name: {figure: statistics.median(each[figure] for each in turns) for figure in turns[0]}
        for name, turns in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=3000, help="sockets of the row idle")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--only", default="memory,one,many,idle")
    parser.add_argument("--against", default="starlette,channels")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    rows = _Rows(given.sockets, given.idle, given.seconds)
    with tempfile.TemporaryDirectory() as place, servers_only(Path(place) / "servers") as environment:
        servers = dict(environment)
        url = servers["DREAM_REDIS_URL"]
        publishers = {"starlette": _to_starlette, "channels": _to_channels}

        def dream() -> Any:
            folder = Path(tempfile.mkdtemp(dir=place))
            return _dream(folder, servers, max(given.sockets, given.idle))

        contenders: dict[str, Callable[[], Any]] = {"dream": dream}
        for kind in filter(None, given.against.split(",")):
            contenders[kind] = partial(_opponent, kind, servers, publishers[kind](url))
        for name in given.only.split(","):
            found = _measured(contenders, getattr(rows, name), given.rounds)
            print(f"\n{name}")
            for contender, figures in found.items():
                said = "   ".join(f"{figure} {value:,.1f}" for figure, value in figures.items())
                print(f"  {contender:<12} {said}", flush=True)


if __name__ == "__main__":
    main()

"""The connections of one gateway process: caps on their number, and deadlines for their requests.

accept ─► waits for a head ─► busy with a request ─► waits again …
               │ too long: cut      └─► a WebSocket, until it ends

Caps hold for the process and for each address. Where a cap is reached, the connection that has waited longest without a
request is cut for the new one. Where none waits, a few more are admitted: they get `/healthz`, and else 503 (429 where
their own address is full).
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.gateway.services import RETRY_AFTER_S
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "BACKLOG",
    "Door",
    "FullHouse",
    "PerClient",
    "Room",
    "answer_bytes",
    "counted_as",
    "most_connections",
    "raise_open_files",
]

#: Connections that the kernel keeps for us; asyncio accepts as many in one go.
BACKLOG = 256
#: Files that the process needs beside connections: the backlog of one go, databases, Redis, the store, the page.
_OTHER_FILES = BACKLOG + 128
#: More descriptors are of no use, and slow down code that closes all of them.
_MOST_FILES = 65536
#: Connections admitted over the caps at a time, so that `/healthz` is answered.
_EXTRAS = 64
_TOLD_EVERY_S = 60.0
_V6_PREFIX = 64
_LONGEST_NAME = 64
_FULL = {
    429: "there are too many connections from this address; close some, or try again later",
    503: "the gateway has as many connections as it can take; try again later",
}

log = get_logger(__name__)


def raise_open_files() -> int:
    """Raise the soft limit of open files as far as the hard one allows; returns how many may be open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST_FILES if hard == unlimited else min(hard, _MOST_FILES)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == unlimited else soft


def most_connections(settings: Settings, open_files: int) -> int:
    """`DREAM_MAX_CONNECTIONS`, or as many as the limit of open files allows: uploads on disk need files too."""
    room = max(16, open_files - open_files // 8 - _OTHER_FILES)
    if room < settings.max_connections:
        log.warning(
            "open_files_few",
            open_files=open_files,
            connections=room,
            do="raise the limit of open files (LimitNOFILE=, ulimit -n) or lower DREAM_MAX_CONNECTIONS",
        )
    return min(room, settings.max_connections)


def answer_bytes(status: int, sentence: str) -> bytes:
    """An HTTP/1.1 answer that ends its connection, to be sent where ASGI has no request to answer."""
    body = json.dumps({"error": sentence}).encode()
    retry = f"retry-after: {RETRY_AFTER_S}\r\n" if status in (429, 503) else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body


class Connection(Protocol):
    """A connection as the door uses it."""

    def check(self, now: float) -> None:
        """Cut the client if it takes too long; called every second while HTTP is spoken."""

    def cut(self) -> None:
        """End at once."""


@dataclass(eq=False)
class Room:
    """The place of one connection.

    Parameters:
      connection: the protocol that speaks on it.
      address: the address that it is counted under; None where it is not counted.
      refusal: the status of each answer but that of `/healthz`: 429 where the address was full, 503 where the process
        was; 0 where requests are served.
    """

    connection: Connection
    address: str | None
    refusal: int
    is_left: bool = False


class _Address:
    """The connections of one address."""

    def __init__(self) -> None:
        self.count = 0
        self.waiting: dict[Room, None] = {}


class Door:
    """Counts the connections of a process. Use it on one event loop.

    Parameters:
      settings: the caps, and which proxies are trusted.
      most: connections of the process.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        self._most = most
        self._most_of_address = settings.max_connections_per_address or max(1, most // 2)
        self._proxies = [ip_network(each) for each in settings.trusted_proxies]
        #: Connections that speak HTTP: their deadlines are checked.
        self._http: set[Room] = set()
        self._count = 0
        #: Connections without a request in work, the longest waiting first.
        self._waiting: dict[Room, None] = {}
        self._extras: dict[Room, None] = {}
        self._addresses: dict[str, _Address] = {}
        #: Requests and sockets of each client, also behind proxies.
        self._clients: dict[str, int] = {}
        self._refusals = 0
        self._told_at = float("-inf")
        self._has_warned = False

    # --- a connection's life

    def enter(self, connection: Connection, host: str | None) -> Room | None:
        """A place for a new connection; None where it must be closed, because even the extra places are taken."""
        address = self._counted(host)
        room = self._find_room(connection, address)
        if room is not None:
            self._http.add(room)
        return room

    def leave(self, room: Room) -> None:
        """Free the place of a connection that has ended. A second call changes nothing."""
        self.work(room)
        self._http.discard(room)
        if room.is_left:
            return
        room.is_left = True
        if room.refusal:
            return
        self._count -= 1
        if room.address is not None:
            of_address = self._addresses[room.address]
            of_address.count -= 1
            if not of_address.count:
                del self._addresses[room.address]

    def wait(self, room: Room) -> None:
        """The connection has no request in work: it may be cut for another."""
        if room.is_left:
            return
        if room.refusal:
            self._extras[room] = None
            return
        self._waiting[room] = None
        if room.address is not None:
            self._addresses[room.address].waiting[room] = None

    def work(self, room: Room) -> None:
        """A request of the connection is in work."""
        self._extras.pop(room, None)
        self._waiting.pop(room, None)
        if room.address in self._addresses:
            self._addresses[room.address].waiting.pop(room, None)

    def upgrade(self, room: Room, connection: Connection) -> None:
        """The connection is a WebSocket from now on, with deadlines of its own. It waits until it has shown a token."""
        self.work(room)
        self._http.discard(room)
        room.connection = connection
        self.wait(room)

    def check(self) -> None:
        """Cut clients that take too long; called every second."""
        now = time.monotonic()
        for room in list(self._http):
            room.connection.check(now)
        if self._refusals and now - self._told_at >= _TOLD_EVERY_S:
            log.warning("connections_refused", count=self._refusals, open=self._count)
            self._refusals, self._told_at = 0, now

    def note_forwarded(self, host: str) -> None:
        """A request has come through a proxy. Log the first one that is not trusted."""
        if self._has_warned or self._counted(host) is None:
            return
        self._has_warned = True
        log.warning(
            "proxy_not_trusted",
            address=host,
            do="if this proxy is yours, name it in DREAM_TRUSTED_PROXIES: until then all its clients count as one",
        )

    # --- admission

    def _counted(self, host: str | None) -> str | None:
        """The address that a host is counted under; None for a trusted proxy, which speaks for many clients."""
        address = _parsed(host)
        if address is not None and any(address in network for network in self._proxies):
            return None
        return counted_as(host)

    def _find_room(self, connection: Connection, address: str | None) -> Room | None:
        of_address = self._addresses.get(address) if address is not None else None
        status = 0
        if of_address is not None and of_address.count >= self._most_of_address:
            status = 0 if self._cut_oldest(of_address.waiting) else 429
        elif self._count >= self._most:
            status = 0 if self._cut_oldest(self._waiting) else 503
        room = Room(connection, address, refusal=status)
        if status:
            self._refusals += 1
            if len(self._extras) >= _EXTRAS and not self._cut_oldest(self._extras):
                return None
        else:
            self._count += 1
            if address is not None:
                self._addresses.setdefault(address, _Address()).count += 1
        self.wait(room)
        return room

    def _cut_oldest(self, rooms: dict[Room, None]) -> bool:
        room = next(iter(rooms), None)
        if room is None:
            return False
        self._refusals += 1
        self.leave(room)
        room.connection.cut()
        return True

    # --- clients, also behind proxies

    @contextmanager
    def client(self, host: str) -> Iterator[bool]:
        """Count a request or a socket of a client while the block lasts; yields whether it may be served."""
        address = counted_as(host) or ""
        count = self._clients.get(address, 0)
        if count >= self._most_of_address:
            self._refusals += 1
            yield False
            return
        self._clients[address] = count + 1
        try:
            yield True
        finally:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]


def _parsed(host: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def counted_as(host: str | None) -> str | None:
    """The address that a host is counted under: of IPv6 its /64, the least that a customer has; None without a host."""
    if not host:
        return None
    address = _parsed(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _V6_PREFIX), strict=False))
    return str(address or host[:_LONGEST_NAME])


class PerClient:
    """Middleware that caps the requests and sockets of one client at a time, also behind trusted proxies."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if not client:
            await self._app(scope, receive, send)
            return
        with self._door.client(str(client[0])) as is_admitted:
            if is_admitted:
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close", "code": 1013, "reason": _FULL[429]})
            else:
                await FullHouse(self._app, 429)(scope, receive, send)


class FullHouse:
    """The application of a connection over the caps: it answers `/healthz`, and refuses everything else."""

    def __init__(self, app: ASGIApp, status: int) -> None:
        self._app = app
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"] == "/healthz":
            await self._app(scope, receive, send_last)
            return
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        await JSONResponse({"error": _FULL[self._status]}, self._status, headers)(scope, receive, send_last)

"""Limit the connections of a gateway process, and check the deadlines of their requests.

accept ─► waits for a head ─► busy with a request ─► waits again …
               │ too long: cut      └─► a WebSocket, until it ends

There is a limit for the process and one for each address. At a limit, the connection that has waited longest without a
request is cut for the new one. If no connection waits, a few more are admitted: they can ask `/healthz`, and get 503
for everything else (429 if their own address is at its limit).
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.gateway.faults import RETRY_AFTER_S
from dream.gateway.refusals import code_of_status
from dream.log import get_logger
from dream.observe.metrics import CONNECTIONS, MOST_CONNECTIONS, REFUSED_CONNECTIONS

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "BACKLOG",
    "LINK",
    "Door",
    "FullHouse",
    "PerClient",
    "Room",
    "answer_bytes",
    "counted_as",
    "most_connections",
    "raise_open_files",
]

#: The extension of a scope with its connection. A WebSocket may outlive its request.
LINK = "dream.link"
#: Connections that wait in the queue of the port until the gateway accepts them.
BACKLOG = 256
#: Files beside the counted connections: those accepted before a cut one is closed, database, Redis, object store, page.
_OTHER_FILES = BACKLOG + 128
#: More descriptors have no use, and they slow down code that closes all of them.
_MOST_FILES = 65536
#: Connections over the limits, so that `/healthz` is answered.
_EXTRAS = 64
_LOGGED_EVERY_S = 60.0
_V6_PREFIX = 64
_LONGEST_NAME = 64
_FULL = {
    429: "there are too many connections from this address; close some, or try again later",
    503: "the gateway has as many connections as it can take; try again later",
}

log = get_logger(__name__)


def raise_open_files() -> int:
    """Raise the soft limit of open files towards the hard one; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST_FILES if hard == unlimited else min(hard, _MOST_FILES)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == unlimited else soft


def most_connections(settings: Settings, open_files: int) -> int:
    """`DREAM_MAX_CONNECTIONS`, or fewer if the limit of open files is low: uploads on disk need files too.

    With `DREAM_MEDIA_MODE=proxy` each connection may need one to the object store.
    """
    room = open_files - open_files // 8 - _OTHER_FILES
    room = max(16, room // 2 if settings.media_mode == "proxy" else room)
    if room < settings.max_connections:
        log.warning(
            "open_files_few",
            open_files=open_files,
            connections=room,
            do="raise the limit of open files (LimitNOFILE=, ulimit -n) or lower DREAM_MAX_CONNECTIONS",
        )
    return min(room, settings.max_connections)


def answer_bytes(status: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """An HTTP/1.1 answer that ends its connection, for cases in which ASGI has no request."""
    body = json.dumps({"error": sentence, "code": code_of_status(status)}).encode()
    retry = f"retry-after: {RETRY_AFTER_S}\r\n" if status in (429, 503) else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n"
    )
    return b"".join((head.encode(), *(b"%b: %b\r\n" % each for each in headers), b"\r\n", body))


class Connection(Protocol):
    """The methods of a connection that the door calls."""

    def check(self, now: float) -> None:
        """Cut a client that takes too long; called every second while the connection speaks HTTP."""

    def cut(self) -> None:
        """End at once."""


@dataclass(eq=False)
class Room:
    """The place of one connection.

    Parameters:
      connection: the protocol object of the connection.
      address: the address under which it is counted; None if it is not counted.
      refusal: the status of every answer except that of `/healthz`: 429 if the address was at its limit, 503 if the
        process was; 0 if requests are served.
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
      settings: the limits, and the trusted proxies.
      most: the most connections of the process.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        self._most = most
        self._most_of_address = settings.max_connections_per_address or max(1, most // 2)
        self._proxies = [ip_network(each) for each in settings.trusted_proxies]
        #: Connections that speak HTTP. Their deadlines are checked.
        self._http: set[Room] = set()
        self._count = 0
        #: Connections without a running request; the longest waiting is first.
        self._waiting: dict[Room, None] = {}
        self._extras: dict[Room, None] = {}
        self._addresses: dict[str, _Address] = {}
        #: Requests and sockets of each client, also behind proxies.
        self._clients: dict[str, int] = {}
        self._refusals = 0
        self._logged_at = float("-inf")
        self._has_warned = False

    # --- a connection's life

    def enter(self, connection: Connection, host: str | None) -> Room | None:
        """A place for a new connection; None if even the extra places are taken, so that it must be closed."""
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
        """Note that the connection has no running request, so that it may be cut for another."""
        if room.is_left:
            return
        if room.refusal:
            self._extras[room] = None
            return
        self._waiting[room] = None
        if room.address is not None:
            self._addresses[room.address].waiting[room] = None

    def work(self, room: Room) -> None:
        """Note that a request of the connection runs."""
        self._extras.pop(room, None)
        self._waiting.pop(room, None)
        if room.address in self._addresses:
            self._addresses[room.address].waiting.pop(room, None)

    def upgrade(self, room: Room, connection: Connection) -> None:
        """Note that the connection is now a WebSocket with its own deadlines. It waits until it has shown a token."""
        self.work(room)
        self._http.discard(room)
        room.connection = connection
        self.wait(room)

    def check(self) -> None:
        """Cut clients that take too long; called every second."""
        now = time.monotonic()
        for room in list(self._http):
            room.connection.check(now)
        CONNECTIONS.set(self._count)
        MOST_CONNECTIONS.set(self._most)
        if self._refusals and now - self._logged_at >= _LOGGED_EVERY_S:
            log.warning("connections_refused", count=self._refusals, open=self._count)
            self._refusals, self._logged_at = 0, now

    def note_forwarded(self, host: str) -> None:
        """Log the first request from a proxy that is not trusted."""
        if self._has_warned or self._counted(host) is None:
            return
        self._has_warned = True
        log.warning(
            "proxy_not_trusted",
            address=host,
            do="if this is your proxy, name it in DREAM_TRUSTED_PROXIES: until then all its clients count as one",
        )

    def _note_refusal(self) -> None:
        self._refusals += 1
        REFUSED_CONNECTIONS.add()

    # --- admission

    def _counted(self, host: str | None) -> str | None:
        """The address under which a host is counted; None for a trusted proxy, which has many clients."""
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
            self._note_refusal()
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
        self._note_refusal()
        self.leave(room)
        room.connection.cut()
        return True

    # --- clients, also behind proxies

    def admits(self, host: str) -> bool:
        """Count a request or a socket of a client, and return True, if it is within the limit; `release` ends it."""
        address = counted_as(host) or ""
        count = self._clients.get(address, 0)
        if count >= self._most_of_address:
            self._note_refusal()
            return False
        self._clients[address] = count + 1
        return True

    def release(self, host: str) -> None:
        """Note that a request or a socket of a client has ended."""
        address = counted_as(host) or ""
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
    """The address under which a host is counted: for IPv6 its /64, a customer's smallest network."""
    if not host:
        return None
    address = _parsed(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _V6_PREFIX), strict=False))
    return str(address or host[:_LONGEST_NAME])


class PerClient:
    """Middleware that limits the simultaneous requests and sockets of each client, also behind trusted proxies."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if not client:
            await self._app(scope, receive, send)
            return
        host = str(client[0])
        if self._door.admits(host):
            try:
                await self._app(scope, receive, send)
            finally:
                link = scope["extensions"].get(LINK) if scope["type"] == "websocket" else None
                if link is None or not link.keeps_client(host):
                    self._door.release(host)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1013, "reason": _FULL[429]})
        else:
            await FullHouse(self._app, 429)(scope, receive, send)


class FullHouse:
    """The application of a connection over the limits: it answers `/healthz`, and refuses everything else."""

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
        refusal = {"error": _FULL[self._status], "code": code_of_status(self._status)}
        await JSONResponse(refusal, self._status, headers)(scope, receive, send_last)

"""Read objects for the gateway's clients: HTTP/1.1 to the object store on the event loop, by presigned URLs.

A connection reads one piece of an object, and the next one only after the client has taken it. So a slow client costs
a piece of memory, no thread, and nobody else's time. Connections are used again.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from dream.errors import ObjectStoreUnavailable
from dream.storage.signing import signed_host

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Objects", "StoreAnswer", "StoreSilent"]

#: The most bytes that are read at a time; a slow client keeps about four times as many in memory.
_PIECE_BYTES = 64 * 1024
#: The most bytes of the head of the store's answer.
_HEAD_BYTES = 64 * 1024
#: Idle connections that are kept for each store, and for how long; stores close theirs after 5 to 60 s.
_MOST_IDLE, _IDLE_S = 64, 4.0


class StoreSilent(ObjectStoreUnavailable):
    """The object store took the request and does not answer."""


class _Broken(Exception):
    """The connection ended, or speaks no HTTP."""


class _Origin(NamedTuple):
    host: str
    port: int
    is_tls: bool


class _Connection(asyncio.BufferedProtocol):
    """A connection to the object store.

    Parameters:
      origin: the store's address.
      pieces: memory to read into; all connections of a loop share it, because each empties it at once.
      silence_s: the longest wait for the store.
      forget: called at its end.
    """

    def __init__(
        self, origin: _Origin, pieces: memoryview, silence_s: float, forget: Callable[[_Connection], None]
    ) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.is_open = False
        self._pieces = pieces
        self._silence_s = silence_s
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        #: The running answer.
        self._parser: httptools.HttpResponseParser | None = None
        self._method = ""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._is_whole = self._is_kept = False
        #: Parts of the body that came and were not read yet.
        self._came: list[bytes] = []
        self._news: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the same methods and another base
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._pieces

    def buffer_updated(self, nbytes: int) -> None:
        if self._parser is None:  # an answer without a question
            self.drop()
            return
        try:
            self._parser.feed_data(self._pieces[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.drop()
            return
        if not self._status:
            self._head_bytes += nbytes
            if self._head_bytes > _HEAD_BYTES:
                self.drop()
        elif self._news is None or self._news.done():
            self._transport.pause_reading()  # the client has not taken the piece before
        else:
            self._news.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._forget(self)
        has_no_length = not {"content-length", "transfer-encoding"} & set(self._headers)
        if self._status and has_no_length and exc is None:
            self._is_whole = True
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- called by the parser

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise _Broken  # an answer without a question

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 (it calls)
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:  # another head follows
            self._headers.clear()
            return
        self._status = status
        self._is_kept = self._parser.should_keep_alive()
        self._is_whole = self._method == "HEAD"

    def on_body(self, body: bytes) -> None:
        if self._is_whole:  # of a HEAD
            raise _Broken
        self._came.append(body)

    def on_message_complete(self) -> None:
        self._is_whole = self._status > 0

    # --- called by the reader

    async def ask(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Send a request, and return the status and the headers of the answer, by their names in lower case.

        Raises:
          _Broken: the connection ended, or the answer is no HTTP.
          StoreSilent: nothing came in time.
        """
        self._parser, self._method = httptools.HttpResponseParser(self), method
        self._status, self._headers, self._head_bytes = 0, {}, 0
        self._is_whole = self._is_kept = False
        lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", "")
        self._transport.write("\r\n".join(lines).encode("latin-1"))
        while not self._status:
            await self._wait()
        return self._status, self._headers

    async def body(self) -> bytes:
        """The next piece of the body; empty at its end. Errors as of `ask`."""
        while not self._came:
            if self._is_whole:
                return b""
            await self._wait()
        piece = self._came[0] if len(self._came) == 1 else b"".join(self._came)
        self._came.clear()
        return piece

    @property
    def has_all(self) -> bool:
        """Whether the reader has the whole answer."""
        return self._is_whole and not self._came

    async def _wait(self) -> None:
        """Wait until more has come."""
        if not self.is_open:
            raise _Broken
        self._news = self._loop.create_future()
        self._waits_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._check_silence)
        self._transport.resume_reading()
        await self._news

    def _check_silence(self) -> None:
        """End a wait that is too long; one timer serves all waits of an answer."""
        waits = self._news is not None and not self._news.done()
        late_s = self._loop.time() - self._waits_since if waits else 0.0
        if waits and late_s >= self._silence_s:
            assert self._news is not None  # noqa: S101 (narrowing)
            self._news.set_exception(StoreSilent("could not read an object: the object store is silent"))
        self._timer = self._loop.call_later(max(0.001, self._silence_s - late_s), self._check_silence)

    def rest(self) -> bool:
        """Make the connection ready for another request; return whether it is."""
        self._parser = None
        self._stop_timer()
        if not (self.is_open and self.has_all and self._is_kept):
            return False
        self.idle_since = time.monotonic()
        self._transport.resume_reading()  # to see its end
        return True

    def drop(self) -> None:
        """End the connection at once."""
        self.is_open = False
        self._parser = None  # it points back at this object
        self._stop_timer()
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class StoreAnswer:
    """The object store's answer. Close it in any case.

    Parameters:
      status: the HTTP status.
      headers: by their names in lower case.
    """

    def __init__(self, objects: Objects, connection: _Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._objects = objects
        self._connection: _Connection | None = connection

    async def piece(self) -> bytes:
        """The next piece of the object; empty at its end.

        Raises:
          ObjectStoreUnavailable: the store broke off; `StoreSilent` if nothing came in time.
        """
        if self._connection is None:
            return b""
        try:
            piece = await self._connection.body()
        except _Broken:
            raise ObjectStoreUnavailable("could not read an object: the object store broke off") from None
        if self._connection.has_all:
            self.close()
        return piece

    @property
    def is_read(self) -> bool:
        """Whether `piece` has given all. A body of unknown length may end with an empty piece."""
        return self._connection is None

    def close(self) -> None:
        """Give the connection back if the answer was read whole, else end it. A second call changes nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._objects.give_back(connection)


class Objects:
    """The client of one process. Use it on one event loop.

    Parameters:
      settings: time-outs.
      tls: makes the context for https when it is first needed.
    """

    def __init__(self, settings: Settings, tls: Callable[[], ssl.SSLContext]) -> None:
        self._settings = settings
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._pieces = memoryview(bytearray(_PIECE_BYTES))

    async def get(self, url: str, method: str, headers: Mapping[str, str]) -> StoreAnswer:
        """Ask for an object.

        Parameters:
          url: a presigned URL for this method.
          headers: those of the client that the store should see.

        Raises:
          ObjectStoreUnavailable: the store cannot be reached, or broke off; `StoreSilent` if it does not answer.
        """
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        origin = _Origin(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)
        target = f"{parts.path}?{parts.query}"
        said = {"host": signed_host(url), "accept-encoding": "identity", **headers}
        while connection := self._take(origin):
            with suppress(_Broken):  # the store closed it meanwhile
                return await self._answer(connection, method, target, said)
        try:
            return await self._answer(await self._connect(origin), method, target, said)
        except _Broken:
            raise ObjectStoreUnavailable("could not read an object: the object store broke off") from None

    async def _answer(
        self, connection: _Connection, method: str, target: str, headers: Mapping[str, str]
    ) -> StoreAnswer:
        try:
            status, found = await connection.ask(method, target, headers)
        except BaseException:
            connection.drop()
            raise
        return StoreAnswer(self, connection, status, found)

    async def _connect(self, origin: _Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        tls = await loop.run_in_executor(None, self._context) if origin.is_tls else None

        def make() -> _Connection:
            return _Connection(origin, self._pieces, self._settings.s3_read_timeout_s, self._forget)

        try:
            async with asyncio.timeout(self._settings.s3_connect_timeout_s):
                _, connection = await loop.create_connection(make, origin.host, origin.port, ssl=tls)
        except (OSError, TimeoutError) as error:
            detail = str(error) or "no connection in time"
            raise ObjectStoreUnavailable(
                "could not read an object: the object store did not answer", detail=detail
            ) from None
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def _take(self, origin: _Origin) -> _Connection | None:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_open and time.monotonic() - connection.idle_since < _IDLE_S:
                return connection
            connection.drop()
        return None

    def give_back(self, connection: _Connection) -> None:
        """Keep a connection for the next request if it can be used again, else end it."""
        idle = self._idle.setdefault(connection.origin, [])
        if len(idle) < _MOST_IDLE and connection.rest():
            idle.append(connection)
        else:
            connection.drop()

    def _forget(self, connection: _Connection) -> None:
        """Forget a connection that has ended. With a bucket for each user there are very many origins."""
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.origin, None)

    def close(self) -> None:
        """End all idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().drop()

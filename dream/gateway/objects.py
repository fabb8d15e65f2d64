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
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

import h11

from dream.errors import ObjectStoreUnavailable
from dream.storage.signing import signed_host

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Objects", "StoreAnswer", "StoreSilent"]

#: The most bytes that are read at a time; a slow client keeps about four times as many in memory.
_PIECE_BYTES = 64 * 1024
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
    """A connection to the object store. h11 reads heads and chunks; a body of a known length goes around it.

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
        self._http: h11.Connection | None = None
        #: Bytes that came and were not read yet; the number of the body's bytes that are still to come, if known.
        self._came: list[bytes] = []
        self._left: int | None = None
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
        if self._http is None:  # an answer without a question
            self.drop()
            return
        self._came.append(bytes(self._pieces[:nbytes]))
        if self._news is None or self._news.done():
            self._transport.pause_reading()  # the client has not taken the piece before
        else:
            self._news.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.is_open = False
        self._forget(self)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- called by the reader

    async def ask(self, method: str, target: str, headers: Mapping[str, str]) -> h11.Response:
        """Send a request, and return the head of the answer.

        Raises:
          _Broken: the connection ended, or the answer is no HTTP.
          StoreSilent: nothing came in time.
        """
        self._http = http = h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target=target, headers=list(headers.items()))
        self._transport.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        while not isinstance(head := await self._event(http), h11.Response):
            if not isinstance(head, h11.InformationalResponse):
                raise _Broken
        length = dict(head.headers).get(b"content-length")
        is_plain = length is not None and not any(name == b"transfer-encoding" for name, _ in head.headers)
        if is_plain and method != "HEAD" and head.status_code not in (204, 304):
            self._left = int(length or 0)
            if rest := http.trailing_data[0]:
                self._came.insert(0, rest)
        return head

    async def body(self) -> bytes:
        """The next piece of the body; empty at its end. Errors as of `ask`."""
        if self._left is None:
            assert self._http is not None  # noqa: S101 (it was asked)
            event = await self._event(self._http)
            return event.data if isinstance(event, h11.Data) else b""
        if not self._left:
            return b""
        if not self._came:
            await self._wait()
        piece = self._came[0] if len(self._came) == 1 else b"".join(self._came)
        self._came.clear()
        self._left -= len(piece)
        if self._left < 0:
            raise _Broken
        return piece

    async def _event(self, http: h11.Connection) -> object:
        while True:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                raise _Broken from error
            if event is not h11.NEED_DATA:
                return event
            if not self._came and self.is_open:
                await self._wait()
            http.receive_data(b"".join(self._came))  # nothing: the connection has ended
            self._came.clear()

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
        if not self._came and self._left:
            raise _Broken

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
        http, self._http = self._http, None
        is_whole = not self._left if self._left is not None else http is not None and http.their_state is h11.DONE
        is_kept = http is not None and http.our_state is h11.DONE  # not after "Connection: close"
        self._stop_timer()
        if not (self.is_open and is_whole and is_kept) or self._came:
            return False
        self._left = None
        self.idle_since = time.monotonic()
        self._transport.resume_reading()  # to see its end
        return True

    def drop(self) -> None:
        """End the connection at once."""
        self.is_open = False
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

    def __init__(self, objects: Objects, connection: _Connection, head: h11.Response) -> None:
        self.status = head.status_code
        self.headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
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
        if not piece:
            self.close()
        return piece

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
            head = await connection.ask(method, target, headers)
        except BaseException:
            connection.drop()
            raise
        return StoreAnswer(self, connection, head)

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

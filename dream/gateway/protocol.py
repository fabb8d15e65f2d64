"""Harden uvicorn's protocol for HTTP: deadlines for slow clients, limits on buffers, no traceback for a wrong request.

An ASGI application cannot drop a connection.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dream.gateway.door import LINK, FullHouse, Room, answer_bytes
from dream.gateway.headers import guarded, headers_without_app
from dream.gateway.websocket import AHEAD_BYTES, PIECE_BYTES, READ_BYTES, SocketProtocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dream.gateway.door import Door
    from dream.settings import Settings

__all__ = ["GuardedConfig", "HttpProtocol"]

#: The time for the rest of a body after its answer: some clients read the answer only after they have sent all.
_REST_S = 10.0
#: A client must read `READ_BYTES` of an answer in this time.
_READ_S = 30.0
_BODY_BYTES_PER_S = 1024
#: The most bytes of answers that the client has not read.
_UNREAD_BYTES = 16 * 1024
#: The line and the headers of a request.
_HEAD_BYTES = 16 * 1024
_HEAD_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 "
_LARGE_HEAD = (431, f"the head of the request has more than {_HEAD_BYTES // 1024} KiB; send less of it")
_NO_REQUEST = (400, "this is no HTTP/1.1 request that can be understood")
#: The end of addresses whose answers last until somebody ends them.
_ENDLESS = "/events"
#: The time for a client to read an answer that ends its connection.
_LINGER_S = 2.0


class _HeadTooLarge(Exception):
    """The head of a request is over the limit."""


class _Writer:
    """Sends the head of an answer together with the first bytes of its body, which saves a system call.

    Parameters:
      transport: the connection of the answer.
      loop: sends a head whose body comes later.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._is_begun = False
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send, or keep a head until the next call or the next turn of the loop."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif self._is_begun or data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._head, self._is_begun = data, True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send the head now, if it was not sent."""
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        """End the connection after all that was written."""
        self.flush()
        self._transport.close()


class GuardedConfig(Config):
    """uvicorn's configuration, with the objects that these protocols need.

    Parameters:
      app: the application.
      door: counts connections.
      settings: time limits.
    """

    def __init__(self, app: ASGIApp, *, door: Door, settings: Settings, **kwargs: Any) -> None:
        super().__init__(app, http=HttpProtocol, ws=SocketProtocol, **kwargs)
        self.door = door
        self.settings = settings


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection.

    The parser has no limits of its own, so it gets its input in pieces, and none that belongs to a further request
    before the answer to the present one.
    """

    def __init__(self, config: GuardedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._door, self._settings = config.door, config.settings
        self._room: Room | None = None
        #: The time at which the client began to send a head, a body or its rest; None if it sends nothing.
        self._began_at: float | None = None
        self._running: RequestResponseCycle | None = None
        self._is_in_body = False
        #: Input since the last end of a head or part of a body: a head, trailers, or the extensions of a chunk.
        self._unheard_bytes = 0
        #: Further requests, which wait for the present answer.
        self._ahead = bytearray()
        self._body_bytes = 0
        self._unread_bytes = 0
        self._unread_since = 0.0
        #: The time of the last answer of a connection that ends.
        self._ended_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(_UNREAD_BYTES)
        self._began_at = time.monotonic()
        self._room = self._door.enter(self, self.client[0] if self.client else None)
        if self._room is None:
            transport.abort()
        elif self._room.refusal:
            self.app = guarded(FullHouse(self.app, self._room.refusal), self._settings)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._room is not None:
            self._door.leave(self._room)

    # --- input

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._ended_at is not None:
            return
        self._unset_keepalive_if_required()
        if self._began_at is None:
            self._began_at = time.monotonic()
        self._body_bytes += len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if not self._is_idle and not self._is_in_body:
                self._hold(data[at:])
                return
            # A head is a piece of its own, so that nothing of the next request is parsed with it.
            head_end = -1 if self._is_in_body else data.find(_HEAD_END, at, at + PIECE_BYTES)
            piece = data[at : at + PIECE_BYTES if head_end < 0 else head_end + len(_HEAD_END)]
            at += len(piece)
            self._unheard_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                rest = piece[upgrade.args[0] :] + data[at:]
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
                    return
                data, at = rest, 0
            except httptools.HttpParserError as error:
                is_large = isinstance(error.__context__, _HeadTooLarge)
                self._end(*_LARGE_HEAD if is_large else _NO_REQUEST)
                return
            if self._unheard_bytes > _HEAD_BYTES:
                self._end(*_LARGE_HEAD)
                return

    def _hold(self, data: bytes) -> None:
        """Keep further requests until the present one has its answer."""
        self._began_at = None
        self._ahead += data
        self.flow.pause_reading()
        if len(self._ahead) > AHEAD_BYTES:
            self._abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {LINK: self}
        self.scope["extensions"] = extensions

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # trailers are dropped
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # Counted by its content, so that it does not matter in which parts it came.
        line_bytes = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        if line_bytes + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) > _HEAD_BYTES:
            raise _HeadTooLarge
        before = self.cycle
        super().on_headers_complete()
        self._unheard_bytes = 0
        self._is_in_body = True
        if self.cycle is not before:
            self._begin_request()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._unheard_bytes = 0
        self._is_in_body = False
        self._began_at = None

    @property
    def _is_idle(self) -> bool:
        """Whether no request runs."""
        return self._running is None or self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._writer = cycle.transport = _Writer(self.transport, self.loop)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def _begin_request(self) -> None:
        self._began_at, self._body_bytes = time.monotonic(), 0
        if self._room is not None:
            self._door.work(self._room)
        if self.client and any(name == b"x-forwarded-for" for name, _ in self.headers):
            self._door.note_forwarded(self.client[0])

    def on_response_complete(self) -> None:
        self._writer.flush()  # an answer to HEAD has no body; the next answer must not come first
        if self._is_in_body:
            self._began_at = time.monotonic()
        if self._room is not None:
            self._door.wait(self._room)
        super().on_response_complete()
        if self._ahead and self._is_idle and not self.transport.is_closing():
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self.data_received(ahead)

    def _should_upgrade(self) -> bool:
        # Not while another request runs: its answer would come between the frames.
        return self._is_idle and not (self._room and self._room.refusal) and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.transport.set_write_buffer_limits()  # messages are larger than answers
        protocol = self.transport.get_protocol()
        self.parser = self.cycle = None  # type: ignore[assignment] # they point back at this object
        if self._room is not None and isinstance(protocol, SocketProtocol):
            protocol.room = self._room
            self._door.upgrade(self._room, protocol)

    @property
    def unread_bytes(self) -> int:
        """Bytes that the client has not taken, beyond those that the kernel has."""
        return 0 if self.transport.is_closing() else self.transport.get_write_buffer_size()

    def shutdown(self) -> None:
        """Finish the present answer, if it has an end, and close."""
        super().shutdown()
        if self._running is not None and self._running.scope["path"].endswith(_ENDLESS):
            self._abort()

    # --- called by the door

    def cut(self) -> None:
        """End at once: another connection needs the place, or the client does not read."""
        self._abort()

    def _abort(self) -> None:
        self.transport.abort()
        if self._running is not None:  # it must not write any more
            self._running.disconnected = True
            self._running.message_event.set()

    def check(self, now: float) -> None:
        """Cut a client that takes too long."""
        if self._is_stuck(now) or (self._ended_at is not None and now - self._ended_at > _LINGER_S):
            self._abort()
        elif self._began_at is not None and self._ended_at is None and not self.transport.is_closing():
            late_s = now - self._began_at
            if not self._is_idle:
                self._check_body(late_s)
            elif self._is_in_body:
                if late_s > _REST_S:
                    self.transport.close()
            elif late_s > self._settings.head_timeout_s:
                self._end(408, "the head of the request did not come in time")

    def _check_body(self, late_s: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._began_at = (self._began_at or 0) + 1  # the client waits for the gateway
        elif late_s > self._settings.body_timeout_s + self._body_bytes / _BODY_BYTES_PER_S:
            self._end(408, "the body of the request comes too slowly")

    def _is_stuck(self, now: float) -> bool:
        """Whether the client does not read its answer."""
        unread_bytes = self.transport.get_write_buffer_size()
        # The gateway writes more only after the client has read some.
        if not unread_bytes or not self._unread_bytes - READ_BYTES < unread_bytes <= self._unread_bytes:
            self._unread_bytes, self._unread_since = unread_bytes, now
        return now - self._unread_since > _READ_S

    def _end(self, status: int, sentence: str) -> None:
        """Answer, unless an answer has begun, and end the connection.

        Input is read and dropped for a while: a connection that is closed before may lose its answer.
        """
        running = None if self._is_idle else self._running
        is_silent = status == 408 and running is None and not self._unheard_bytes
        has_answer = not is_silent and (running is None or not running.response_started)
        if has_answer:
            headers = headers_without_app(running.scope if running else self.scope, self._settings)
            self.transport.write(answer_bytes(status, sentence, headers))
        self.pipeline.clear()
        if running is not None:
            running.disconnected = True
            running.message_event.set()
        if has_answer and not self.transport.is_closing():
            self._ended_at = time.monotonic()
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

"""Harden uvicorn's protocols: deadlines for slow clients, limits on buffers, and no traceback for a client's mistake.

An ASGI application cannot drop a connection: a close frame waits behind data that the peer does not read.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from dream.gateway.door import LINK, FullHouse, Room, answer_bytes
from dream.gateway.headers import guarded
from dream.gateway.limits import Bucket

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
    from websockets.frames import Frame

    from dream.gateway.door import Door
    from dream.settings import Settings

__all__ = ["GuardedConfig", "HttpProtocol", "Live", "SocketProtocol"]

_RESTART, _BAD_DATA, _TOO_SLOW = 1012, 1007, 4008
#: A close frame has room for 123.
_MAX_REASON_BYTES = 120
#: The time for a peer to read all data before a close frame, and to answer the frame.
_CLOSE_TIMEOUT_S = 3.0
#: The time for the rest of a body after its answer: some clients read the answer only after they have sent all.
_REST_S = 10.0
#: A client must read this many bytes of an answer in this time.
_READ_BYTES, _READ_S = 16 * 1024, 30.0
_BODY_BYTES_PER_S = 1024
#: The most bytes of further requests before an answer, and of answers that the client has not read.
_AHEAD_BYTES, _UNREAD_BYTES = 32 * 1024, 16 * 1024
#: The line and the headers of a request.
_HEAD_BYTES = 16 * 1024
_HEAD_END = b"\r\n\r\n"
_LARGE_HEAD = (431, f"the head of the request has more than {_HEAD_BYTES // 1024} KiB; send less of it")
_NO_HANDSHAKE = "this is no WebSocket handshake: a GET without a body, lines of at most 8 KiB, at most 128 headers"
_NO_REQUEST = (400, "this is no HTTP/1.1 request that can be understood")
#: The end of addresses whose answers last until somebody ends them.
_ENDLESS = "/events"
#: The time for a client to read an answer that ends its connection.
_LINGER_S = 2.0
#: Input is parsed in pieces, because one read may contain 40,000 pings, or thousands of requests.
_PIECE_BYTES = 4096
#: Frames of one socket, including pongs and fragments of messages.
_FRAMES_PER_S, _FRAMES_AT_ONCE = 100.0, 500.0


class _HeadTooLarge(Exception):
    """The head of a request is over the limit."""


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
            head_end = -1 if self._is_in_body else data.find(_HEAD_END, at, at + _PIECE_BYTES)
            piece = data[at : at + _PIECE_BYTES if head_end < 0 else head_end + len(_HEAD_END)]
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
        if len(self._ahead) > _AHEAD_BYTES:
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
        super()._start_asgi_task(cycle, app)

    def _begin_request(self) -> None:
        self._began_at, self._body_bytes = time.monotonic(), 0
        if self._room is not None:
            self._door.work(self._room)
        if self.client and any(name == b"x-forwarded-for" for name, _ in self.headers):
            self._door.note_forwarded(self.client[0])

    def on_response_complete(self) -> None:
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
        if not unread_bytes or not self._unread_bytes - _READ_BYTES < unread_bytes <= self._unread_bytes:
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
            self.transport.write(answer_bytes(status, sentence))
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


class _Nowhere:
    """Takes the place of the queue and the event of a live connection, which has neither."""

    def put_nowait(self, _item: object) -> None: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...


_NOWHERE: Any = _Nowhere()


class Live(Protocol):
    """A WebSocket without a coroutine: its methods are called for its messages and its end."""

    def receive(self, data: bytes) -> None:
        """Take a message of the peer."""

    def lost(self, code: int) -> None:
        """Learn that the connection is gone, and with which code it was closed."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection. At shutdown it ends with 1012.

        handshake ─► the application's coroutine: token, greeting ─► `go_live`: no coroutine, no task, no queue

    While a peer does not read, its input is not read either. When the application closes, such a peer is dropped.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._door = cast("GuardedConfig", config).door
        #: The connection's place with the door, taken over from its HTTP protocol.
        self.room: Room | None = None
        self._early = b""
        self._frames = Bucket(_FRAMES_PER_S, _FRAMES_AT_ONCE)
        #: Reading is paused while the peer does not read, or for good after too many frames.
        self._is_unread = self._is_deaf = False
        self._live: Live | None = None
        self._client: str | None = None
        #: The code with which the connection was closed.
        self.close_code = 1006
        #: Rounds since the peer was last heard; `dream.gateway.watchers.Rounds` counts them.
        self.silent_rounds = 0
        #: The time since which the peer has not read enough; None if it reads.
        self.unread_since: float | None = None

    async def run_asgi(self) -> None:
        """Run the application. The connection goes on after it if it went live."""
        extensions: dict[Any, Any] = self.scope["extensions"] or {}
        extensions[LINK] = self
        try:
            await self.app(self.scope, self.receive, self.send)
        except (ClientDisconnected, asyncio.CancelledError):
            pass  # the peer has gone, or the server stops
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
        if not self.handshake_complete:
            self.send_500_response()
        if self._live is None:
            if self.close_timer is None:
                self.transport.close()
            self._drop_soon()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.room is not None:
            self._door.leave(self.room)
        if self._client is not None:
            self._door.release(self._client)
        if self._live is not None:
            self._live.lost(self.close_code)

    # --- a live connection

    def go_live(self, live: Live) -> bool:
        """Leave the coroutine: from now on messages go to `live`. Returns whether the connection still is open.

        Everything that only the coroutine needs is freed; a process may have thousands of these connections.
        """
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return False
        queue, self.queue = self.queue, _NOWHERE
        self.writable = _NOWHERE
        self._live = live
        self.scope = self.request = self.response = self.app = None  # type: ignore[assignment]
        if self.room is not None:
            self._door.work(self.room)  # only a peer with a token goes live
        self.read_paused = False
        self._read_or_pause()
        while not queue.empty():
            message = queue.get_nowait()
            if message["type"] == "websocket.receive":
                live.receive(message.get("bytes") or (message.get("text") or "").encode())
        return True

    def keeps_client(self, host: str) -> bool:
        """Whether the connection goes on, and subtracts the client from the door's count at its end."""
        if self._live is None or self.disconnected:
            return False
        self._client = host
        return True

    def hold_input(self, is_held: bool) -> None:
        """Stop reading the peer, or go on."""
        self.read_paused = is_held
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self.transport.is_closing():
            return
        if self.read_paused or self._is_unread or self._is_deaf:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait for the peer, beyond those that the kernel has."""
        return 0 if self.transport.is_closing() else self.transport.get_write_buffer_size()

    def write(self, frames: bytes) -> None:
        """Send ready frames."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def end(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection soon after it."""
        if not self.close_sent and not self.disconnected:
            self._end(code, reason)

    # --- from the peer

    def data_received(self, data: bytes) -> None:
        self.silent_rounds = 0
        for start in range(0, len(data), _PIECE_BYTES):
            if self._is_deaf or self.transport.is_closing():
                return
            if self.handshake_initiated and not self.handshake_complete:
                self._hold(data[start:])
                return
            super().data_received(data[start : start + _PIECE_BYTES])
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self.handle_parser_exception()

    def _hold(self, data: bytes) -> None:
        """Keep frames of a peer that does not wait for the answer to its handshake."""
        self._early += data
        self.transport.pause_reading()
        if len(self._early) > _AHEAD_BYTES:
            self.cut()

    def _takes_frame(self) -> bool:
        """Whether the peer may send one more frame; if not, end the connection."""
        if self._is_deaf:
            return False
        if self._frames.take() and not self.close_sent:
            return True
        self.conn.data_to_send()  # drop the answers to its frames
        if not self.close_sent:
            self._end(_TOO_SLOW, "too many frames in a short time")
            self._is_deaf = True
            self.transport.pause_reading()
        return False

    def handle_ping(self) -> None:
        if self._takes_frame():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._takes_frame():
            super().handle_pong(event)

    def handle_text(self, event: Frame) -> None:
        if self._takes_frame():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self._takes_frame():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        # Empty fragments are dropped: they would collect without end.
        if self._takes_frame() and (event.data or event.fin):
            super().handle_cont(event)

    def handle_close(self, event: Frame) -> None:
        if not self.close_sent and self.conn.close_rcvd is not None:
            self.close_code = self.conn.close_rcvd.code
        super().handle_close(event)
        self._drop_soon()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.frames = []
            self._end(_BAD_DATA, "the message is not UTF-8")
        elif self._live is None:
            super().send_receive_event_to_app()
        else:
            data, self.frames = b"".join(self.frames), []
            if not self.close_sent:
                self._live.receive(data)

    def handle_parser_exception(self) -> None:
        """Close the connection of a peer that breaks the protocol; before the handshake, by an HTTP answer."""
        if self.conn.close_sent is not None:
            self.close_code = self.conn.close_sent.code
            super().handle_parser_exception()
            self._drop_soon()
            return
        if not self.handshake_initiated:
            self.transport.write(answer_bytes(400, _NO_HANDSHAKE))
        self.transport.close()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self._is_unread or self._is_deaf:  # uvicorn may have resumed reading
            self.transport.pause_reading()
        return message

    def pause_writing(self) -> None:
        """Stop reading while the peer does not read: answers to its input would fill the buffer."""
        super().pause_writing()
        self._is_unread = True
        self.unread_since = time.monotonic()
        self._read_or_pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_unread = False
        self.unread_since = None
        self._read_or_pause()

    # --- to the peer

    async def send(self, message: ASGISendEvent) -> None:
        """Send as uvicorn does, but send a close frame at once and end the connection soon after it."""
        if message["type"] != "websocket.close" or not self.handshake_complete or self.close_sent:
            await super().send(message)
            if self._early and self.handshake_complete:
                early, self._early = self._early, b""
                self.transport.resume_reading()
                self.data_received(early)
        elif not self.disconnected:
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self._end(code, reason)

    def shutdown(self) -> None:
        """Close the connection because the server stops."""
        if self.handshake_complete and not self.close_sent and not self.disconnected:
            self._end(_RESTART, "the server restarts; connect again")
        else:
            super().shutdown()

    def cut(self) -> None:
        """End at once: another connection needs the place, or the peer is dead."""
        self.disconnected = True
        self.transport.abort()

    def check(self, now: float) -> None:
        """Do nothing: the application has a deadline for the first message, and pings."""

    def _end(self, code: int, reason: str) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.conn.state is not State.OPEN or self.transport.is_closing():  # the peer has closed it
            return
        self.close_code = code
        self.conn.send_close(code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_CLOSE_TIMEOUT_S, self.transport.abort)

    def _drop_soon(self) -> None:
        """Abort a closed connection after a while, even if the peer does not read."""
        if not self.disconnected:
            self.loop.call_later(_CLOSE_TIMEOUT_S, self.transport.abort)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

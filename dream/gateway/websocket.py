"""Harden uvicorn's protocol for WebSockets: limits on frames, and an end for peers that do not read.

handshake ─► the application's coroutine: token, greeting ─► `go_live`: no coroutine, no task, no queue
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any, Protocol, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from dream.gateway.door import LINK, Room, answer_bytes
from dream.gateway.limits import Bucket

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
    from uvicorn.config import Config
    from websockets.frames import Frame

    from dream.gateway.protocol import GuardedConfig

__all__ = ["AHEAD_BYTES", "PIECE_BYTES", "READ_BYTES", "Live", "SocketProtocol"]

#: Input is parsed in pieces, because one read may contain 40,000 pings, or thousands of requests.
PIECE_BYTES = 4096
#: The most bytes that a client may send before an answer.
AHEAD_BYTES = 32 * 1024
#: A client that takes fewer bytes in some time counts as one that does not read.
READ_BYTES = 16 * 1024
_READ_S = 10.0
_RESTART, _BAD_DATA, _TOO_SLOW = 1012, 1007, 4008
#: A close frame has room for 123.
_MAX_REASON_BYTES = 120
#: The time for a peer to answer a close frame; one that has not read all before it gets this time more often.
_CLOSE_TIMEOUT_S, _CHANCES = 3.0, 2
#: Frames of one socket, including pongs and fragments of messages.
_FRAMES_PER_S, _FRAMES_AT_ONCE = 100.0, 500.0
_NO_HANDSHAKE = "this is no WebSocket handshake: a GET without a body, lines of at most 8 KiB, at most 128 headers"


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

    def stuck(self) -> None:
        """Learn that the peer does not read."""

    def lost(self, code: int) -> None:
        """Learn that the connection is gone, and with which code it was closed."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection. At shutdown it ends with 1012.

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
        self._written_bytes = 0
        #: Runs while bytes wait for the peer.
        self._reading_timer: asyncio.TimerHandle | None = None
        #: Whether the peer has taken less than `READ_BYTES` in `_READ_S`.
        self.is_stuck = False

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
        if self._live is None and self.close_timer is None:
            self.transport.close()
            self._drop_soon()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_reading_timer()
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

    @property
    def is_unread(self) -> bool:
        """Whether more bytes wait for the peer than the buffer is for."""
        return self._is_unread

    def _start_reading_timer(self) -> None:
        taken_bytes = self._written_bytes - self._untaken_bytes()
        self._reading_timer = self.loop.call_later(_READ_S, self._look_whether_read, taken_bytes)

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _look_whether_read(self, before_bytes: int) -> None:
        self.is_stuck = self._written_bytes - self._untaken_bytes() - before_bytes < READ_BYTES
        if self.is_stuck and self._live is not None:
            self._live.stuck()
        else:
            self._start_reading_timer()

    def _untaken_bytes(self) -> int:
        """Bytes that wait for the peer here or in the kernel."""
        try:
            socket = self.transport.get_extra_info("socket")
            in_kernel = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # a closed connection, or macOS
            in_kernel = b""
        return self.unread_bytes + int.from_bytes(in_kernel, sys.byteorder)

    def write(self, frames: bytes) -> None:
        """Send ready frames."""
        if not self.close_sent and not self.transport.is_closing():
            self._written_bytes += len(frames)
            self.transport.write(frames)

    def end(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection soon after it."""
        if not self.close_sent and not self.disconnected:
            self._end(code, reason)

    # --- from the peer

    def data_received(self, data: bytes) -> None:
        self.silent_rounds = 0
        for start in range(0, len(data), PIECE_BYTES):
            if self._is_deaf or self.transport.is_closing():
                return
            if self.handshake_initiated and not self.handshake_complete:
                self._hold(data[start:])
                return
            super().data_received(data[start : start + PIECE_BYTES])
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self.handle_parser_exception()

    def _hold(self, data: bytes) -> None:
        """Keep frames of a peer that does not wait for the answer to its handshake."""
        self._early += data
        self.transport.pause_reading()
        if len(self._early) > AHEAD_BYTES:
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
        self._start_reading_timer()
        self._read_or_pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_unread = False
        self.is_stuck = False
        self._stop_reading_timer()
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
        chances = _CHANCES if self._is_unread and code != _RESTART else 0
        self._drop_unless_read(self._untaken_bytes() + READ_BYTES, chances)

    def _drop_unless_read(self, before_bytes: int, chances: int) -> None:
        """Drop a closed connection whose peer takes too little of what was sent before the close frame."""
        left_bytes = self._untaken_bytes()
        if before_bytes - left_bytes < READ_BYTES:
            chances -= 1
        if chances < 0:
            self.transport.abort()
        else:
            self.close_timer = self.loop.call_later(_CLOSE_TIMEOUT_S, self._drop_unless_read, left_bytes, chances)

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

"""uvicorn's WebSocket protocol with two habits of ours: sockets end with 1001 at shutdown, and a peer that does not
read is dropped instead of kept.

ASGI gives an application no way to drop a connection: a close frame waits behind what the peer does not take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

__all__ = ["SocketProtocol"]

_GOING_AWAY = 1001
#: How long a peer may take to answer a close frame.
_CLOSE_TIMEOUT_S = 3.0


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send as uvicorn does; but a close frame never waits, and the connection ends soon after it."""
        if message["type"] != "websocket.close" or not self.handshake_complete or self.close_sent:
            await super().send(message)
        elif not self.disconnected:
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self._end(code, reason)

    def shutdown(self) -> None:
        """The server stops."""
        if self.handshake_complete and not self.close_sent and not self.disconnected:
            self.stop_keepalive()
            self._end(_GOING_AWAY, "the server is going away")
        else:
            super().shutdown()

    def keepalive_timeout(self) -> None:
        """The peer answers no ping: what waits for it is of no use."""
        super().keepalive_timeout()
        self.transport.abort()

    def _end(self, code: int, reason: str) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_CLOSE_TIMEOUT_S, self.transport.abort)

"""Serve the events of a dream as Server-Sent Events, for clients that cannot use WebSockets.

    authorize ─► connection_established ─► missed events ─► events · a comment every few seconds

An event has the message of the WebSocket as its data and its `seq` as its id, so a browser's EventSource continues by
itself after the last one (`Last-Event-ID`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dream.errors import TokenRejected
from dream.gateway.auth import Identity, bearer_token
from dream.gateway.credentials import identity_shown
from dream.gateway.door import LINK
from dream.gateway.images import owner_for
from dream.gateway.limits import User
from dream.gateway.operations import Parameter, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.gateway.watchers import GREETING, Watcher, json_text
from dream.notifications.subscribe import Event

if TYPE_CHECKING:
    from dream.gateway.protocol import HttpProtocol

__all__ = ["stream_events"]

#: The time after which a browser connects again.
_RETRY_MS = 3000
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_SEQ = {"type": "string", "maxLength": 40}


@operation(
    "Receive the events of a dream",
    {200: Returns("events, until the connection ends", media_type="text/event-stream")},
    parameters=(
        Parameter("since", _SEQ, "the last event that the client has seen"),
        Parameter("Last-Event-ID", _SEQ, "the same, as browsers send it", "header"),
        Parameter("ticket", {"type": "string"}, "a ticket instead of the Authorization header"),
        Parameter("token", {"type": "string"}, "a token instead of the Authorization header"),
    ),
    refusals=(Code.DREAM_NOT_FOUND, Code.DREAM_NOT_YOURS),
)
async def stream_events(request: Request) -> Response:
    """Stream the messages of the WebSocket as Server-Sent Events."""
    services, dream_id = services_of(request), int(request.path_params["dream_id"])
    identity = await _identity(request, services)
    services.limits.request(identity.user_id)
    await owner_for(services, identity, dream_id)
    if request.method == "HEAD":
        return Response(headers=_HEADERS)
    user = services.limits.admit(identity.user_id)
    if user is None:
        most = services.limits.most_sockets
        raise Refused(Code.TOO_MANY_CONNECTIONS, f"you have {most} sockets and streams open; close some")
    since = request.headers.get("last-event-id") or request.query_params.get("since", "")
    return _Answer(Stream(request.scope["extensions"][LINK], services, dream_id, identity, user), since)


async def _identity(request: Request, services: Services) -> Identity:
    """The user of a ticket or a token. A browser's EventSource sends no headers and repeats its address."""
    identity = await identity_shown(request)
    if identity is None:
        token = bearer_token(request.query_params.get("token", ""))
        if not token:
            raise TokenRejected("there is no token")
        identity = await services.authenticator.identity_of(token)
    return identity


def _block(kind: str, text: str, seq: str | None = None) -> bytes:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {kind}\ndata: {text}\n\n".encode(errors="replace")


def _event_block(event: Event) -> bytes:
    return _block("image_update", json_text(event.fields), event.seq)


class Stream(Watcher):
    """One open stream.

    Parameters:
      link: its connection.
    """

    __slots__ = ("_link", "_news", "_unsent", "_unsent_bytes")

    def __init__(self, link: HttpProtocol, services: Services, dream_id: int, identity: Identity, user: User) -> None:
        super().__init__(services, dream_id, identity, user)
        self._link = link
        self._news = asyncio.Event()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    def event_bytes(self, event: Event) -> bytes:
        return event.form(_event_block)

    def text_bytes(self, text: str) -> bytes:
        return _block("image_update", text)

    def write(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._news.set()

    def unsent(self) -> bytes:
        """The bytes to send now."""
        data, self._unsent, self._unsent_bytes = b"".join(self._unsent), [], 0
        return data

    async def next_bytes(self) -> bytes:
        """The next bytes to send; none at the end."""
        while not self._unsent and not self.is_over:
            self._news.clear()
            await self._news.wait()
        return self.unsent()

    def send_error(self, sentence: str) -> None:
        self.send(_block("error_message", json_text({"type": "error", "message": sentence})))

    def greet(self, seq: str | None) -> None:
        """Say that the stream is open; `seq` is the newest event's id, if none is sent again."""
        kind, number = "connection_established", {} if seq is None else {"seq": seq}
        message = {"type": kind, "dream_id": self.dream_id, "message": GREETING, **number}
        self.write(f"retry: {_RETRY_MS}\n\n".encode() + _block(kind, json_text(message), seq))

    def ping(self, now: float) -> None:  # noqa: ARG002 (a comment has no fields)
        self.send(b": ping\n\n")

    def end(self, code: int, reason: str) -> None:  # noqa: ARG002 (a stream has no close frame)
        """End the stream. A client that has not read all is cut; another one connects again and is told why."""
        self.finish()
        if self._link.unread_bytes:
            self._link.cut()
        self._news.set()

    def cut(self) -> None:
        self._link.cut()

    @property
    def unread_bytes(self) -> int:
        return self._unsent_bytes + self._link.unread_bytes


class _Answer(Response):
    """The answer that lasts as long as the stream."""

    def __init__(self, stream: Stream, since: str) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._stream, self._since = stream, since

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        leaving = asyncio.create_task(self._wait_for_end(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            seq = await stream.begin()
            stream.greet(None if self._since else seq)
            if self._since:
                async for _ in stream.catch_up(self._since):
                    await send({"type": "http.response.body", "body": stream.unsent(), "more_body": True})
            stream.open()
            while data := await stream.next_bytes():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            stream.finish()

    async def _wait_for_end(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.finish()
        self._stream.write(b"")

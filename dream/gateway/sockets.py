"""Serve the WebSocket of a dream: token, events, answers (source: docs/contract.md, "WebSocket").

    accept ─► authenticate ─► connection_established ─► missed events ─► live: events · pings · answers
                  │ 4001                                                    │ 4001, 4008, 1012

A coroutine brings the socket to life and ends. A live socket is an object that the connection calls for messages, the
events for news and the rounds for pings. A task runs only while the database answers one of its messages.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.frames import Frame, Opcode

from dream.errors import TicketsUnavailable, TokenKeysUnavailable, TokenRejected
from dream.gateway.auth import Identity, bearer_token
from dream.gateway.credentials import identity_shown, subprotocol_of
from dream.gateway.door import LINK
from dream.gateway.faults import DATABASE_FAULTS, log_fault, sentence_of
from dream.gateway.limits import Bucket, User
from dream.gateway.services import Services, services_of
from dream.gateway.watchers import (
    GREETING,
    MISTAKE,
    MISTAKEN,
    REJECTED,
    TOO_SLOW,
    TRY_LATER,
    Ended,
    Watcher,
    json_text,
)
from dream.log import get_logger
from dream.messages.arguments import MAX_ID
from dream.notifications.subscribe import Event
from dream.observe.metrics import SOCKETS, SOCKETS_CLOSED

if TYPE_CHECKING:
    from dream.gateway.websocket import SocketProtocol

__all__ = ["authorized", "watch_dream"]

AUTHENTICATE_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 10.0
#: While a peer that catches up takes nothing, it is looked at so often.
_LOOK_EVERY_S = 1.0
#: Labels of metrics; a client may send any code.
_KNOWN_CODES = frozenset({1000, 1001, 1005, 1006, 1007, 1009, MISTAKE, 1012, TRY_LATER, REJECTED, TOO_SLOW})
#: Messages of one socket, of any type.
_MESSAGES_PER_S, _MESSAGES_AT_ONCE = 10, 20
#: A peer that says nothing in three rounds has answered none of two pings.
_SILENT_ROUNDS = 2
_UNREAD = "you do not read what is sent; connect again with since"
_PING = Frame(Opcode.PING, b"").serialize(mask=False)

log = get_logger(__name__)


async def watch_dream(websocket: WebSocket) -> None:
    """Bring a socket to life, or close it."""
    dream_id = int(websocket.path_params["dream_id"])
    began = time.monotonic()
    await websocket.accept(subprotocol_of(websocket))
    SOCKETS.add(1)
    try:
        if await _go_live(websocket, services_of(websocket), dream_id, began):
            return
        code = websocket.scope["extensions"][LINK].close_code
    except Ended as end:
        code = end.code
        await _close(websocket, end)
    except WebSocketDisconnect as end:
        code = end.code
    except Exception:
        log.exception("socket_failed", dream_id=dream_id)
        code = MISTAKE
        await _close(websocket, Ended(MISTAKE, MISTAKEN))
    _note_end(dream_id, code, began)


def _note_end(dream_id: int, code: int, began: float) -> None:
    SOCKETS.add(-1)
    SOCKETS_CLOSED.add(str(code) if code in _KNOWN_CODES else "other")
    log.info("socket_closed", dream_id=dream_id, code=code, lasted_s=round(time.monotonic() - began, 1))


async def _close(websocket: WebSocket, end: Ended) -> None:
    if websocket.application_state is WebSocketState.CONNECTED:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await websocket.close(end.code, end.reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return  # the peer is gone or does not read; the connection is dropped


async def _go_live(websocket: WebSocket, services: Services, dream_id: int, began: float) -> bool:
    """Authenticate, greet and catch up. Returns whether the socket goes on without this coroutine."""
    identity = await authorized(services, _identity(websocket), dream_id)
    user = services.limits.admit(identity.user_id)
    if user is None:
        most = services.limits.most_sockets
        raise Ended(TRY_LATER, f"you have {most} sockets open, and no more are allowed; close some")
    link: SocketProtocol = websocket.scope["extensions"][LINK]
    live = LiveSocket(link, services, dream_id, identity, user, began)
    is_live = False
    try:
        since = websocket.query_params.get("since")
        seq = await live.begin()
        live.greet(None if since else seq)
        if since:
            async for _ in live.catch_up(since):
                await _taken(link)
        is_live = link.go_live(live)
    finally:
        if not is_live:
            live.finish()
    if is_live:
        live.open()
    return is_live


async def _taken(link: SocketProtocol) -> None:
    """Wait until the peer has taken most of what was sent."""
    while not link.writable.is_set():
        if link.is_stuck:
            raise Ended(TOO_SLOW, _UNREAD)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await link.writable.wait()


# --- authentication


async def _identity(websocket: WebSocket) -> Identity:
    """The user of the head, or of the token in the first message."""
    identity = await identity_shown(websocket)
    if identity is not None:
        return identity
    return await services_of(websocket).authenticator.identity_of(bearer_token(await _first_token(websocket)))


async def _first_token(websocket: WebSocket) -> str:
    try:
        async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
            received = await websocket.receive()
    except TimeoutError:
        raise Ended(REJECTED, "no token came in time") from None
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code") or 1005, received.get("reason"))
    try:
        message = _parsed(received.get("bytes") or received.get("text") or "")
    except ValueError as error:
        raise Ended(REJECTED, f"the first message must be authenticate: {error}") from None
    if message["type"] != "authenticate" or not isinstance(message.get("token"), str):
        raise Ended(REJECTED, "the first message must be authenticate, with a token")
    return str(message["token"])


async def authorized(services: Services, identified: Awaitable[Identity], dream_id: int) -> Identity:
    """Check whether somebody may watch a dream.

    Raises:
      Ended: the token is not accepted, or the database does not answer.
    """
    try:
        identity = await identified
        if not 0 < dream_id <= MAX_ID:
            raise Ended(REJECTED, "there is no such dream")
        async with services.limits.of(identity.user_id).turn:
            await run_in_threadpool(services.authenticator.authorize, identity, dream_id)
    except TokenRejected as error:
        raise Ended(REJECTED, str(error)) from None
    except (*DATABASE_FAULTS, TokenKeysUnavailable, TicketsUnavailable) as error:
        log_fault("socket_refused", error, dream_id=dream_id)
        raise Ended(TRY_LATER, sentence_of(error)) from None
    return identity


# --- a live socket


def _frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode(errors="replace")).serialize(mask=False)


@lru_cache(maxsize=1)
def _ping_frames(now: float) -> bytes:
    """Both pings, made once for all sockets of a round."""
    return _frame(json_text({"type": "ping", "timestamp": now})) + _PING


def _event_frame(event: Event) -> bytes:
    return _frame(json_text(event.fields))


class LiveSocket(Watcher):
    """One socket whose token was accepted.

    Parameters:
      link: its connection.
      began: the time at which it was opened.
    """

    __slots__ = ("_answering", "_began", "_inbox", "_link", "_messages")

    def __init__(
        self, link: SocketProtocol, services: Services, dream_id: int, identity: Identity, user: User, began: float
    ) -> None:
        super().__init__(services, dream_id, identity, user)
        self._link = link
        self._began = began
        self._messages: Bucket | None = None
        self._inbox: list[bytes] = []
        self._answering: asyncio.Task[None] | None = None

    # --- to the client

    def event_bytes(self, event: Event) -> bytes:
        return event.form(_event_frame)

    def text_bytes(self, text: str) -> bytes:
        return _frame(text)

    def write(self, data: bytes) -> None:
        self._link.write(data)

    def _say(self, **message: Any) -> None:
        self.send(_frame(json_text(message)))

    def send_error(self, sentence: str) -> None:
        self._say(type="error", message=sentence)

    def greet(self, seq: str | None = None) -> None:
        """Say that the socket is connected; `seq` is the newest event's id, if none is sent again."""
        number = {} if seq is None else {"seq": seq}
        self._say(type="connection_established", dream_id=self.dream_id, message=GREETING, **number)

    def ping(self, now: float) -> None:
        """Send both pings: old clients answer the one of the protocol only. Behind unread bytes they are no use."""
        if not self._link.is_unread:
            self.send(_ping_frames(now))

    def is_silent(self) -> bool:
        if self._answering is not None or self._link.is_unread:
            return False  # it is not read meanwhile
        self._link.silent_rounds += 1
        return self._link.silent_rounds > _SILENT_ROUNDS

    @property
    def unread_bytes(self) -> int:
        return self._link.unread_bytes

    # --- its end

    def end(self, code: int, reason: str) -> None:
        self.finish()
        self._link.end(code, reason)

    def cut(self) -> None:
        self._link.cut()

    def stuck(self) -> None:
        """Called by the connection when the client does not read."""
        self.end(TOO_SLOW, _UNREAD)

    def lost(self, code: int) -> None:
        """Called by the connection at its end."""
        self.finish()
        _note_end(self.dream_id, code, self._began)

    # --- from the client

    def receive(self, data: bytes) -> None:
        """Called by the connection for each message. While one is answered, others wait and the client is not read."""
        if self.is_over:
            return
        if self._messages is None:
            self._messages = Bucket(_MESSAGES_PER_S, _MESSAGES_AT_ONCE)
        if not self._messages.take():
            self.end(TOO_SLOW, f"too many messages; at most {_MESSAGES_PER_S} a second are read")
            return
        self._inbox.append(data)
        if self._answering is None:
            self._answer_all()

    def _answer_all(self) -> None:
        while self._inbox and not self.is_over:
            answer = self._answer(self._inbox.pop(0))
            if answer is not None:
                self._link.hold_input(True)
                self._answering = asyncio.create_task(self._wait_for(answer))
                return

    async def _wait_for(self, answer: Coroutine[Any, Any, object]) -> None:
        try:
            await answer
        except Ended as end:
            self.end(end.code, end.reason)
        except Exception:
            log.exception("socket_failed", dream_id=self.dream_id)
            self.end(MISTAKE, MISTAKEN)
        self._answering = None
        if not self.is_over:
            self._link.hold_input(False)
            self._answer_all()

    def _answer(self, data: bytes) -> Coroutine[Any, Any, object] | None:
        """Answer a message at once, or return the work that will."""
        try:
            message = _parsed(data)
        except ValueError as error:
            self.send_error(str(error))
            return None
        kind = message["type"]
        if kind == "ping":
            self._say(type="pong", timestamp=time.time())
        elif kind in ("request_status", "authenticate"):
            if not self.user.statuses.take():
                most = self._services.settings.max_status_requests_per_user_s
                self.end(TOO_SLOW, f"too many {kind} messages; at most {most} a second are answered to one user")
            elif kind == "request_status":
                return self.send_snapshot()
            elif isinstance(message.get("token"), str):
                return self._authenticate(message["token"])
            else:
                self.end(REJECTED, "authenticate needs a token")
        elif kind != "pong":
            self.send_error(f"unknown message type {kind[:50]!r}")
        return None

    async def _authenticate(self, token: str) -> None:
        """Go on with another token. The socket still counts for the user who opened it."""
        identified = self._services.authenticator.identity_of(bearer_token(token))
        self.identity = await authorized(self._services, identified, self.dream_id)
        self.greet()


def _parsed(data: str | bytes) -> dict[str, Any]:
    """Parse a client's message.

    Raises:
      ValueError: the message is wrong, with the reason.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("the message is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError("the message must be a JSON object with a type")
    return message

"""Serve the WebSocket of a dream: token, events, answers (source: docs/contract.md, "WebSocket").

    accept ─► authenticate ─► connection_established ─► missed events ─► events · pings · answers
                  │ 4001                                                     │ 4001, 4008, 1001

Four tasks share a socket: one reads the client, one sends events, one pings and checks the token again, one waits for
an overflow of the queue. When one ends, the socket ends. A send waits at most `_SEND_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dream.db import images
from dream.errors import TokenKeysUnavailable, TokenRejected
from dream.gateway.auth import bearer_token
from dream.gateway.faults import DATABASE_FAULTS, log_fault, sentence_of
from dream.gateway.limits import Bucket, User
from dream.gateway.services import Services, services_of
from dream.log import get_logger
from dream.messages.arguments import MAX_ID
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import image_error, image_ref
from dream.messages.states import ImageState
from dream.notifications.subscribe import Event, Subscription, is_after
from dream.observe.metrics import EVENTS_SENT, SOCKETS, SOCKETS_CLOSED

if TYPE_CHECKING:
    from dream.db import Database

__all__ = ["REJECTED", "TOO_SLOW", "TRY_LATER", "watch_dream"]

REJECTED = 4001
TOO_SLOW = 4008
TRY_LATER = 1013
AUTHENTICATE_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 10.0
_MAX_REASON_BYTES = 120
#: Labels of metrics; a client may send any code.
_KNOWN_CODES = frozenset({1000, 1001, 1005, 1006, 1007, 1009, TRY_LATER, REJECTED, TOO_SLOW})
#: Messages of one socket, of any type.
_MESSAGES_PER_S, _MESSAGES_AT_ONCE = 20, 100

log = get_logger(__name__)


class _Close(Exception):
    """The server ends the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def watch_dream(websocket: WebSocket) -> None:
    """Serve one socket from start to end."""
    dream_id = int(websocket.path_params["dream_id"])
    began = time.monotonic()
    await websocket.accept()
    SOCKETS.add(1)
    code = 1000
    try:
        await _Watcher(websocket, services_of(websocket), dream_id).run()
    except _Close as end:
        code = end.code
        await _close(websocket, end)
    except WebSocketDisconnect as end:
        code = end.code
    finally:
        SOCKETS.add(-1)
        SOCKETS_CLOSED.add(str(code) if code in _KNOWN_CODES else "other")
    log.info("socket_closed", dream_id=dream_id, code=code, lasted_s=round(time.monotonic() - began, 1))


async def _close(websocket: WebSocket, end: _Close) -> None:
    if websocket.application_state is WebSocketState.CONNECTED:
        reason = end.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await websocket.close(end.code, reason)


class _Watcher:
    """One socket."""

    def __init__(self, websocket: WebSocket, services: Services, dream_id: int) -> None:
        self._websocket = websocket
        self._services = services
        self._dream_id = dream_id
        self._token = ""
        self._user = User(services.settings)  # until the token names the user
        self._messages = Bucket(_MESSAGES_PER_S, _MESSAGES_AT_ONCE)
        #: The last sent event, so that no event is sent twice.
        self._seq: str | None = None

    async def run(self) -> None:
        user_id = await self._authorize(await self._first_token())
        with self._services.limits.socket(user_id) as is_admitted:
            if not is_admitted:
                most = self._services.limits.most_sockets
                raise _Close(TRY_LATER, f"you have {most} sockets open, and no more are allowed; close some")
            subscription = await self._services.events.subscribe(self._dream_id)
            try:
                await self._greet(subscription)
                await self._catch_up()
                await _until_first_ends(
                    self._read_client(), self._send_events(subscription), self._ping(), _wait_for_overflow(subscription)
                )
            finally:
                self._services.events.unsubscribe(subscription)

    # --- authentication

    async def _first_token(self) -> str:
        token = self._websocket.query_params.get("token")
        if token:
            return token
        try:
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT_S):
                message = _parsed(await self._receive())
        except TimeoutError:
            raise _Close(REJECTED, "no token came in time") from None
        except ValueError as error:
            raise _Close(REJECTED, f"the first message must be authenticate: {error}") from None
        if message["type"] != "authenticate" or not isinstance(message.get("token"), str):
            raise _Close(REJECTED, "the first message must be authenticate, with a token")
        return str(message["token"])

    async def _authorize(self, token: str) -> int:
        """Check the token; return the id of its user."""
        token = bearer_token(token)
        if not 0 < self._dream_id <= MAX_ID:
            raise _Close(REJECTED, "there is no such dream")
        try:
            identity = await self._services.authenticator.identity_of(token)
            self._user = self._services.limits.of(identity.user_id)
            async with self._user.turn:
                await run_in_threadpool(self._services.authenticator.authorize, identity, self._dream_id)
        except TokenRejected as error:
            raise _Close(REJECTED, str(error)) from None
        except (*DATABASE_FAULTS, TokenKeysUnavailable) as error:
            log_fault("socket_refused", error, dream_id=self._dream_id)
            raise _Close(TRY_LATER, sentence_of(error)) from None
        self._token = token
        return identity.user_id

    # --- to the client

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_text(json.dumps(message, separators=(",", ":"), ensure_ascii=False))

    async def _send_text(self, text: str) -> None:
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise _Close(TOO_SLOW, "the socket does not take what is sent") from None
        except RuntimeError:  # another task or the shutdown has closed it
            raise WebSocketDisconnect(1006) from None

    async def _greet(self, subscription: Subscription | None = None) -> None:
        message: dict[str, Any] = {
            "type": "connection_established",
            "dream_id": self._dream_id,
            "message": "connected; updates of this dream's images follow",
        }
        if subscription is not None and subscription.seq is not None:
            message["seq"] = subscription.seq
        await self._send(message)

    async def _catch_up(self) -> None:
        since = self._websocket.query_params.get("since")
        if not since:
            return
        missed = await self._services.events.since(self._dream_id, since)
        if missed is None:
            await self._send_snapshot()
        for event in missed or ():
            await self._send_event(event)

    async def _send_events(self, subscription: Subscription) -> None:
        while True:
            event = await subscription.get()
            if event is None:
                self._seq = None  # Redis may have lost its newest entries
                await self._send_snapshot()
            elif self._seq is None or is_after(event["seq"], self._seq):
                await self._send_event(event)

    async def _send_event(self, event: Event) -> None:
        await self._send(event)
        EVENTS_SENT.add()
        self._seq = event["seq"]

    async def _send_snapshot(self) -> None:
        try:
            async with self._user.turn:
                text = await run_in_threadpool(_snapshot_text, self._services.connections.database, self._dream_id)
        except DATABASE_FAULTS as error:
            log_fault("snapshot_failed", error, dream_id=self._dream_id)
            await self._send_error(sentence_of(error))
        else:
            await self._send_text(text)

    async def _send_error(self, text: str) -> None:
        await self._send({"type": "error", "message": text})

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._services.settings.ping_interval_s)
            try:
                identity = await self._services.authenticator.identity_of(self._token)
                await run_in_threadpool(self._services.authenticator.confirm, identity)
            except TokenRejected as error:
                raise _Close(REJECTED, str(error)) from None
            except (*DATABASE_FAULTS, TokenKeysUnavailable) as error:
                # A database that is away cuts no socket; an expired token was rejected before.
                log_fault("token_not_rechecked", error)
            await self._send({"type": "ping", "timestamp": time.time()})

    # --- from the client

    async def _receive(self) -> str | bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005, message.get("reason"))
        data: str | bytes | None = message.get("text")
        return data if data is not None else message["bytes"]

    async def _read_client(self) -> None:
        while True:
            data = await self._receive()
            if not self._messages.take():
                raise _Close(TOO_SLOW, f"too many messages; at most {_MESSAGES_PER_S} a second are read")
            try:
                message = _parsed(data)
            except ValueError as error:
                await self._send_error(str(error))
            else:
                await self._answer(message)

    async def _answer(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ping":
            await self._send({"type": "pong", "timestamp": time.time()})
        elif kind == "request_status":
            self._count_costly(kind)
            await self._send_snapshot()
        elif kind == "authenticate":
            self._count_costly(kind)
            if not isinstance(message.get("token"), str):
                raise _Close(REJECTED, "authenticate needs a token")
            await self._authorize(message["token"])
            await self._greet()
        elif kind != "pong":
            await self._send_error(f"unknown message type {kind[:50]!r}")

    def _count_costly(self, kind: str) -> None:
        """Count messages that need the database, over all sockets of the user."""
        if not self._user.statuses.take():
            most = self._services.settings.max_status_requests_per_user_s
            raise _Close(TOO_SLOW, f"too many {kind} messages; at most {most} a second are answered to one user")


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


async def _wait_for_overflow(subscription: Subscription) -> None:
    await subscription.overflowed.wait()
    raise _Close(TOO_SLOW, "the socket fell too far behind")


async def _until_first_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run all. When one ends, stop the others and raise its error."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


# --- the snapshot


def _snapshot_text(database: Database, dream_id: int) -> str:
    """The snapshot as JSON, encoded in the thread that reads it: a thousand pictures take milliseconds."""
    return json.dumps(_snapshot(database, dream_id).as_message(), separators=(",", ":"), ensure_ascii=False)


def _snapshot(database: Database, dream_id: int) -> ImageUpdate:
    """The dream's pictures as one update: `processing` while one is unfinished, `failed` if all have failed."""
    with database.read() as session:
        rows = images.page(session, dream_id)
    done = [row for row in rows if row.state == ImageState.COMPLETED and row.url]
    failed = [row for row in rows if row.state == ImageState.FAILED]
    return ImageUpdate(
        dream_id=dream_id,
        status=_status(rows, has_done=bool(done), has_failed=bool(failed)),
        images=tuple(image_ref(row) for row in done),
        errors=tuple(map(image_error, failed)),
    )


def _status(rows: Sequence[Row[Any]], *, has_done: bool, has_failed: bool) -> UpdateStatus:
    if any(row.state in (ImageState.PENDING, ImageState.PROCESSING) for row in rows):
        return UpdateStatus.PROCESSING
    return UpdateStatus.FAILED if has_failed and not has_done else UpdateStatus.COMPLETED

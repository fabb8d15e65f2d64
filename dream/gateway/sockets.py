"""The WebSocket of a dream: who may watch, what is said, when it ends (source: docs/contract.md, "WebSocket").

    accept ─► authenticate ─► connection_established ─► what was missed ─► events · pings · answers
                  │ 4001                                                     │ 4001, 4008, 1001

Four tasks share a socket: one reads the client, one sends events, one pings and checks the token again, one waits
for the queue to overflow. The first that ends, ends the socket. A send never waits longer than `_SEND_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dream.arguments import MAX_ID
from dream.errors import TokenRejected
from dream.gateway.auth import bearer_token, decode
from dream.gateway.faults import DATABASE_FAULTS, log_fault, sentence_of
from dream.gateway.limits import Bucket, User
from dream.gateway.services import Services, services_of
from dream.gateway.snapshot import snapshot_text
from dream.log import get_logger
from dream.notifications.subscription import Event, Subscription, is_after

__all__ = ["REJECTED", "TOO_SLOW", "TRY_LATER", "watch_dream"]

REJECTED = 4001
TOO_SLOW = 4008
TRY_LATER = 1013
AUTHENTICATE_TIMEOUT_S = 10.0
_SEND_TIMEOUT_S = 10.0
_MAX_REASON_BYTES = 120
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
    """Serve one socket from its first to its last message."""
    dream_id = int(websocket.path_params["dream_id"])
    began = time.monotonic()
    await websocket.accept()
    code = 1000
    try:
        await _Watcher(websocket, services_of(websocket), dream_id).run()
    except _Close as end:
        code = end.code
        await _close(websocket, end)
    except WebSocketDisconnect as end:
        code = end.code
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
        self._user = User(services.settings)  # until the token says whose it is
        self._messages = Bucket(_MESSAGES_PER_S, _MESSAGES_AT_ONCE)
        #: The last event sent, so that none is sent twice.
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

    # --- who is it?

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
        """Check the token; returns the id of its user."""
        token = bearer_token(token)
        if not 0 < self._dream_id <= MAX_ID:
            raise _Close(REJECTED, "there is no such dream")
        try:
            identity = decode(token, self._services.settings)
            self._user = self._services.limits.of(identity.user_id)
            async with self._user.turn:
                await run_in_threadpool(self._services.authenticator.authorize, identity, self._dream_id)
        except TokenRejected as error:
            raise _Close(REJECTED, str(error)) from None
        except DATABASE_FAULTS as error:
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
        except RuntimeError:  # closed in between, by another task or by the server's shutdown
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
                self._seq = None  # Redis may have lost its newest ids
                await self._send_snapshot()
            elif self._seq is None or is_after(event["seq"], self._seq):
                await self._send_event(event)

    async def _send_event(self, event: Event) -> None:
        await self._send(event)
        self._seq = event["seq"]

    async def _send_snapshot(self) -> None:
        try:
            async with self._user.turn:
                text = await run_in_threadpool(snapshot_text, self._services.database, self._dream_id)
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
                await run_in_threadpool(self._services.authenticator.identify, self._token)
            except TokenRejected as error:
                raise _Close(REJECTED, str(error)) from None
            except DATABASE_FAULTS as error:
                # Nobody is cut because the database is away; a token that expired was rejected before that.
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
        """Count messages that ask the database, over all sockets of the user."""
        if not self._user.statuses.take():
            most = self._services.settings.max_status_requests_per_user_s
            raise _Close(TOO_SLOW, f"too many {kind} messages; at most {most} a second are answered to one user")


def _parsed(data: str | bytes) -> dict[str, Any]:
    """Read a client's message; a ValueError says what is wrong with it."""
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
    """Run all; when one ends, stop the others and raise what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()

"""Opponents of the gateway: plain Starlette with a queue a socket, and Django Channels, both on uvicorn.

    python -m benchmarks.gateway_opponents starlette PORT REDIS_URL

They do what their tutorials do, without tokens, pings and limits: read events from Redis, and send them to the sockets
of `/ws/dream-images/<id>/`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn

__all__ = ["CHANNEL", "channel_layers", "group_of"]

#: The channel of Redis to which events for the Starlette application are published.
CHANNEL = "benchmark:events"
_QUEUE = 1000


def group_of(dream_id: int) -> str:
    """The group of Channels for a dream."""
    return f"dream{dream_id}"


def channel_layers(redis_url: str) -> dict[str, Any]:
    """The setting CHANNEL_LAYERS."""
    return {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis_url]}}}


def starlette_app(redis_url: str) -> Any:  # noqa: C901 (an application in one piece)
    """One queue and two tasks a socket; each socket encodes each event."""
    from redis.asyncio import Redis
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    queues: dict[int, set[asyncio.Queue[dict[str, Any]]]] = {}

    async def listen() -> None:
        async with Redis.from_url(redis_url).pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    event = json.loads(message["data"])
                    for queue in queues.get(event["dream_id"], ()):
                        with suppress(asyncio.QueueFull):
                            queue.put_nowait(event)

    async def watch(websocket: WebSocket) -> None:
        dream_id = int(websocket.path_params["dream_id"])
        await websocket.accept()
        await websocket.send_json({"type": "connection_established", "dream_id": dream_id})
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUE)
        queues.setdefault(dream_id, set()).add(queue)

        async def send() -> None:
            while True:
                await websocket.send_json(await queue.get())

        sender = asyncio.create_task(send())
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            return
        finally:
            sender.cancel()
            queues[dream_id].discard(queue)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        listener = asyncio.create_task(listen())
        yield
        listener.cancel()

    return Starlette(routes=[WebSocketRoute("/ws/dream-images/{dream_id:int}/", watch)], lifespan=lifespan)


def channels_app(redis_url: str) -> Any:
    """A consumer in a group, as in the tutorial of Channels."""
    from django.conf import settings

    settings.configure(CHANNEL_LAYERS=channel_layers(redis_url))
    from channels.generic.websocket import AsyncJsonWebsocketConsumer  # type: ignore[import-untyped]
    from channels.routing import URLRouter  # type: ignore[import-untyped]
    from django.urls import path

    class Watch(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            dream_id = self.scope["url_route"]["kwargs"]["dream_id"]
            self.group = group_of(dream_id)
            await self.channel_layer.group_add(self.group, self.channel_name)
            await self.accept()
            await self.send_json({"type": "connection_established", "dream_id": dream_id})

        async def disconnect(self, _code: int) -> None:
            await self.channel_layer.group_discard(self.group, self.channel_name)

        async def image_update(self, message: dict[str, Any]) -> None:
            await self.send_json(message["event"])

    return URLRouter([path("ws/dream-images/<int:dream_id>/", Watch.as_asgi())])


def main() -> None:
    kind, port, redis_url = sys.argv[1:]
    app = {"starlette": starlette_app, "channels": channels_app}[kind](redis_url)
    lifespan: Any = "on" if kind == "starlette" else "off"
    uvicorn.run(app, port=int(port), log_level="error", lifespan=lifespan, ws_per_message_deflate=False, backlog=4096)


if __name__ == "__main__":
    main()

"""The events of a dream as Server-Sent Events: who gets them, what comes, and what ends them."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dream.gateway.auth import Identity
from dream.gateway.services import Services
from dream.gateway.watchers import Watcher
from dream.settings import Settings
from tests.gateway import DREAM, OWNER, SECRET, STRANGER, Gateway, auth, publish_a_gap, token, without_pictures

ADDRESS = f"/api/dreams/{DREAM}/events"


class Block(dict[str, str]):
    """The fields of one event."""

    @property
    def message(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self["data"])
        return loaded


@contextmanager
def streaming(gateway: Gateway, query: str = "", **headers: str) -> Iterator[Iterator[Block]]:
    with gateway.http.stream("GET", ADDRESS + query, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _blocks(answer)


def _blocks(answer: httpx.Response) -> Iterator[Block]:
    block = Block()
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            block[name] = value
        else:
            yield block
            block = Block()


def test_events_come_with_their_seq_as_id(gateway: Gateway) -> None:
    """The header opens the stream; the greeting and each event have the WebSocket's message."""
    with streaming(gateway, **auth()) as blocks:
        assert int(next(blocks)["retry"]) > 0
        greeting = next(blocks)
        assert greeting["event"] == greeting.message["type"] == "connection_established"
        gateway.publish(40)
        event = next(blocks)
        assert event["event"] == event.message["type"] == "image_update"
        assert (event["id"], event.message["progress"]) == (event.message["seq"], 40)


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_stream_goes_on_after_the_last_event(gateway: Gateway, how: str) -> None:
    """Missed events come first, in order, then new ones; a token in the address is for EventSource."""
    with streaming(gateway, f"?token={token()}") as blocks:
        next(blocks), next(blocks)
        gateway.publish(1)
        seq = next(blocks)["id"]
    gateway.publish(2)
    query, headers = (f"?token={token()}", {"Last-Event-ID": seq}) if how == "header" else (f"?since={seq}", auth())
    with streaming(gateway, query, **headers) as blocks:
        next(blocks), next(blocks)
        gateway.publish(3)
        assert [next(blocks).message["progress"] for _ in range(2)] == [2, 3]


def test_a_stream_catches_up_with_more_than_a_slow_client_may_be_behind(start: Callable[..., Gateway]) -> None:
    """Otherwise a browser connects again after the same event, for ever."""
    with start(socket_queue_size="16") as gateway:
        for number in range(40):
            gateway.publish(number, message="x" * 20_000)
        with streaming(gateway, "?since=0-0", **auth()) as blocks:
            next(blocks), next(blocks)
            assert [next(blocks).message["progress"] for _ in range(40)] == list(range(40))


def test_a_stream_that_does_not_reach_back_begins_with_the_state(gateway: Gateway) -> None:
    image_id = gateway.add_image()
    with streaming(gateway, "?since=5-0", **auth()) as blocks:
        next(blocks), next(blocks)
        assert [image["id"] for image in next(blocks).message["images"]] == [image_id]


def test_a_stream_whose_state_cannot_be_read_says_so_and_sends_it_later(gateway: Gateway) -> None:
    image_id = gateway.add_image()
    with streaming(gateway, **auth()) as blocks:
        next(blocks), next(blocks)
        with without_pictures(gateway):
            publish_a_gap(gateway)
            assert next(blocks)["event"] == "error_message"
        block = next(blocks)
        while block.get("event") != "image_update":
            block = next(blocks)
        assert [image["id"] for image in block.message["images"]] == [image_id]


def test_strangers_get_no_stream(gateway: Gateway) -> None:
    for headers, status in (({}, 401), (auth(token(STRANGER)), 403), (auth("nonsense"), 401)):
        answer = gateway.http.get(ADDRESS, headers=headers)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "code"})


def test_a_stream_ends_with_its_token_its_limit_and_the_server(start: Callable[..., Gateway]) -> None:
    """Comments keep it alive; a revoked token ends it, and so does a stop, without a traceback."""
    own = token(jti="stream")
    with start(ping_interval_s="0.3", max_sockets_per_user="2") as gateway:
        with streaming(gateway, **auth(own)) as blocks, streaming(gateway, **auth()) as others:
            refused = gateway.http.get(ADDRESS, headers=auth())
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_connections")
            assert int(refused.headers["retry-after"]) > 0
            next(blocks), next(blocks)
            assert next(blocks) == {"": "ping"}
            assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
            assert all(block == {"": "ping"} for block in blocks)
            gateway.process.send_signal(signal.SIGTERM)
            with suppress(httpx.RemoteProtocolError):  # the connection is cut
                list(others)
        assert gateway.process.wait(10) == 0
        assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize("ends", ["while it subscribes", "before it opens"])
def test_a_client_that_leaves_early_is_forgotten(
    ends: str, environment: dict[str, str], settings_of: Callable[..., Settings]
) -> None:
    """Neither the events nor the rounds keep a watcher that has ended before it was open."""

    class Early(Watcher):
        """A kind without a connection."""

    async def come_and_go() -> None:
        services = Services(settings_of({**environment, "DREAM_JWT_SECRET": SECRET}))
        await services.start()
        try:
            user = services.limits.admit(OWNER)
            assert user is not None
            watcher = Early(services, DREAM, Identity(str(OWNER), datetime.now(UTC) + timedelta(hours=1), None), user)
            beginning = asyncio.create_task(watcher.begin())
            await asyncio.sleep(0)  # it asks Redis now
            if ends == "while it subscribes":
                watcher.finish()
            assert await beginning is not None
            watcher.finish()
            watcher.open()
            kept = weakref.ref(watcher)
            del watcher, beginning
            gc.collect()
            assert kept() is None
            assert user.sockets == 0
        finally:
            await services.stop()

    asyncio.run(come_and_go())

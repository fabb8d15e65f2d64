"""Events through a real Valkey, which is killed and started again where a claim needs that."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from dream import notifications
from dream.errors import InvalidArguments
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.notifications import Publisher, publish
from dream.notifications.publish import events_key, wake_channel
from dream.notifications.subscribe import Event, Events, is_after
from dream.settings import Settings
from tests.valkey import Valkey

BOUND_S = 15.0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


def settings_for(valkey: Valkey, **values: Any) -> Settings:
    return Settings(broker_url=valkey.url, redis_prefix="test", **values)


def update(dream_id: int, number: int, message: str | None = None) -> ImageUpdate:
    return ImageUpdate(dream_id=dream_id, status=UpdateStatus.PROCESSING, progress=number, message=message)


def watch(settings: Settings, scenario: Callable[[Events, Publisher], Awaitable[None]]) -> None:
    """Run a scenario against started Events and a Publisher, and stop both."""

    async def run() -> None:
        events, publisher = Events(settings), Publisher(settings)
        await events.start()
        try:
            async with asyncio.timeout(4 * BOUND_S):
                await scenario(events, publisher)
        finally:
            await events.stop()
            publisher.close()

    asyncio.run(run())


class Reader:
    """A subscriber that keeps what it gets; None is a gap."""

    def __init__(self, dream_id: int) -> None:
        self.dream_id = dream_id
        self.seq: str | None = None
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def deliver(self, event: Event) -> None:
        self._queue.put_nowait(event.fields)

    def miss(self) -> None:
        self._queue.put_nowait(None)

    async def get(self) -> dict[str, Any] | None:
        return await self._queue.get()


async def subscribe(events: Events, dream_id: int) -> Reader:
    reader = Reader(dream_id)
    reader.seq = await events.subscribe(dream_id, reader)
    return reader


async def take(subscription: Reader, count: int) -> list[Any]:
    async with asyncio.timeout(BOUND_S):
        return [await subscription.get() for _ in range(count)]


async def publish_until_taken(publisher: Publisher, event: ImageUpdate) -> None:
    async with asyncio.timeout(BOUND_S):
        while not await asyncio.to_thread(publisher.publish, event):
            await asyncio.sleep(0.02)


def progress(events: list[Any]) -> list[int]:
    return [event["progress"] for event in events]


def test_subscribers_get_every_event_in_order_and_once(valkey: Valkey) -> None:
    """Two sockets of a dream and one of another each get their dream's events, in order, with growing `seq`."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        first, second, other = [await subscribe(events, dream_id) for dream_id in (7, 7, 8)]
        for number in range(100):
            assert publisher.publish(update(7, number))
        assert publisher.publish(update(8, 1))
        received = await take(first, 100)
        assert progress(received) == list(range(100))
        assert progress(await take(second, 100)) == list(range(100))
        assert progress(await take(other, 1)) == [1]
        seqs = [event["seq"] for event in received]
        assert all(is_after(later, earlier) for earlier, later in pairwise(seqs))
        assert received[0]["dream_id"] == 7

    watch(settings_for(valkey), scenario)


def test_what_no_publisher_of_ours_wrote_ends_nothing(valkey: Valkey) -> None:
    """A word on the channel that names no dream is passed over; an entry that is no event is a gap."""
    settings = settings_for(valkey)

    async def scenario(events: Events, publisher: Publisher) -> None:
        subscription = await subscribe(events, 7)
        assert publisher.publish(update(7, 1))
        assert progress(await take(subscription, 1)) == [1]
        with redis.Redis.from_url(valkey.url) as stranger:
            for noise in ("5", '{"dream_id": null}', "[" * 100_000, "no JSON"):
                stranger.publish(wake_channel(settings.redis_prefix), noise)
            stranger.xadd(events_key(settings.redis_prefix, 7), {"event": "5"})
            stranger.xadd(events_key(settings.redis_prefix, 7), {"another": "5"})
        assert publisher.publish(update(7, 2))
        assert await take(subscription, 2) == [None, None]
        assert progress(await take(subscription, 1)) == [2]

    watch(settings, scenario)


def test_a_subscription_begins_now(valkey: Valkey) -> None:
    """Earlier events are not sent to a new subscriber."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        publisher.publish(update(7, 1))
        subscription = await subscribe(events, 7)
        publisher.publish(update(7, 2))
        assert progress(await take(subscription, 1)) == [2]

    watch(settings_for(valkey), scenario)


def test_after_a_tasks_end_nothing_of_its_course_is_told(valkey: Valkey) -> None:
    """A run that was paused until another had done its work must not have the last word."""
    settings = settings_for(valkey)
    publisher = Publisher(settings)
    processing, completed, failed = UpdateStatus.PROCESSING, UpdateStatus.COMPLETED, UpdateStatus.FAILED
    told = [(processing, "a"), (completed, "a"), (processing, "b"), (processing, None)]
    too_late = (processing, "a")
    again = (failed, "a")  # replayed, it ends once more
    for status, task_id in [*told, too_late, again]:
        assert publisher.publish(ImageUpdate(dream_id=7, status=status, task_id=task_id))
    publisher.close()
    with redis.Redis.from_url(valkey.url) as client:
        stream: Any = client.xrange(events_key(settings.redis_prefix, 7))
    events = [json.loads(fields[b"event"]) for _, fields in stream]
    assert [(event["status"], event.get("task_id")) for event in events] == [*told, again]


def test_an_event_with_a_once_name_is_appended_once(valkey: Valkey) -> None:
    """The same terminal event, published again or from many threads, stands in the stream once; each call says True."""
    settings = settings_for(valkey)
    publisher = Publisher(settings)
    answers: list[bool] = []

    def publish() -> None:
        answers.append(publisher.publish(update(7, 100), once="task:completed"))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.publish(update(7, 100), once="task:failed")
    publisher.close()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.xlen(events_key("test", 7)) == 2
    assert answers == [True] * 8


def test_a_stream_is_capped_and_expires(valkey: Valkey) -> None:
    """A dream's stream keeps about `events_max_length` events and goes after `events_ttl_s`."""
    publisher = Publisher(settings_for(valkey, events_max_length=50, events_ttl_s=600))
    for number in range(400):
        publisher.publish(update(7, number % 100))
    publisher.close()
    with redis.Redis.from_url(valkey.url) as client:
        assert 50 <= int(client.xlen(events_key("test", 7))) < 250
        assert 590 <= int(client.ttl(events_key("test", 7))) <= 600


def test_publishing_without_redis_is_false_and_quick(valkey: Valkey) -> None:
    """The socket is a courtesy: without Redis `publish` says False within its time-outs and raises nothing."""
    valkey.kill()
    publisher = Publisher(settings_for(valkey))
    began = time.monotonic()
    assert publisher.publish(update(7, 1)) is False
    assert time.monotonic() - began < 6


def test_publishing_survives_a_restart_of_redis(valkey: Valkey) -> None:
    """The first event after a restart goes through, though the pooled connection is dead."""
    publisher = Publisher(settings_for(valkey))
    assert publisher.publish(update(7, 1))
    valkey.kill()
    valkey.start()
    assert publisher.publish(update(7, 2))
    publisher.close()


def test_a_restart_of_redis_loses_and_repeats_nothing(valkey: Valkey) -> None:
    """Events before, and events that other processes append while we are not yet connected again, all arrive once."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        subscription = await subscribe(events, 7)
        publisher.publish(update(7, 1))
        assert progress(await take(subscription, 1)) == [1]
        for number in (2, 3):
            await asyncio.to_thread(valkey.kill)
            await asyncio.to_thread(valkey.start)
            await publish_until_taken(publisher, update(7, number * 10))
            await publish_until_taken(publisher, update(7, number * 10 + 1))
        assert progress(await take(subscription, 4)) == [20, 21, 30, 31]

    watch(settings_for(valkey), scenario)


def test_a_subscription_made_while_redis_is_down_is_told_of_the_gap(valkey: Valkey) -> None:
    """Nobody knows what happened before Redis came back: the subscriber is told so, then gets what follows."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        await asyncio.to_thread(valkey.kill)
        subscription = await subscribe(events, 7)
        assert subscription.seq is None
        await asyncio.to_thread(valkey.start)
        assert await take(subscription, 1) == [None]
        publisher.publish(update(7, 5))
        assert progress(await take(subscription, 1)) == [5]

    watch(settings_for(valkey), scenario)


def test_a_stream_that_was_lost_is_a_gap(valkey: Valkey) -> None:
    """If Redis comes back without the stream, subscribers are told to read the database."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        subscription = await subscribe(events, 7)
        publisher.publish(update(7, 1))
        await take(subscription, 1)
        with redis.Redis.from_url(valkey.url) as client:
            client.flushall()
        await asyncio.to_thread(valkey.kill)
        await asyncio.to_thread(valkey.start)
        assert await take(subscription, 1) == [None]
        await publish_until_taken(publisher, update(7, 2))
        assert progress(await take(subscription, 1)) == [2]

    watch(settings_for(valkey), scenario)


def test_since_gives_what_was_missed_or_says_that_it_cannot(valkey: Valkey) -> None:
    """`since` lists later events; None for an id that was trimmed, lies ahead, or is no id."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        async def since(seq: str, dream_id: int = 7) -> list[Any]:
            return [event and event.fields["progress"] async for event in events.since(dream_id, seq)]

        subscription = await subscribe(events, 7)
        for number in range(40):
            publisher.publish(update(7, number))
        seqs = [event["seq"] for event in await take(subscription, 40)]
        assert await since(seqs[1]) == list(range(2, 40))
        assert await since(seqs[39]) == []
        for odd in ("1-0", f"{2**63 - 1}-0", "9" * 30, "", "-", "(1", "1-", "x"):
            assert await since(odd) == [None], odd
        assert await since(seqs[0], dream_id=8) == [None]
        await asyncio.to_thread(valkey.kill)
        assert await since(seqs[1]) == [None]

    watch(settings_for(valkey), scenario)


def test_the_bytes_of_an_event_are_made_once(valkey: Valkey) -> None:
    """All subscribers of a dream get the same event, and each form of it is computed by the first who asks."""
    made: list[str] = []

    def make(event: Event) -> bytes:
        made.append(event.seq)
        return json.dumps(event.fields).encode()

    class Maker(Reader):
        def deliver(self, event: Event) -> None:
            self._queue.put_nowait({"form": event.form(make)})

    async def scenario(events: Events, publisher: Publisher) -> None:
        makers = [Maker(7) for _ in range(3)]
        for maker in makers:
            await events.subscribe(7, maker)
        publisher.publish(update(7, 1))
        forms = [(await take(maker, 1))[0]["form"] for maker in makers]
        assert forms[0] is forms[1] is forms[2]
        assert len(made) == 1

    watch(settings_for(valkey), scenario)


def test_connections_do_not_grow_with_sockets(valkey: Valkey) -> None:
    """A process holds one connection that listens and one that reads, for any number of sockets."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        subscriptions = [await subscribe(events, number % 20) for number in range(200)]
        for number in range(20):
            publisher.publish(update(number, 1))
        for subscription in subscriptions:
            await take(subscription, 1)
        with redis.Redis.from_url(valkey.url) as client:
            assert len(client.client_list()) <= 4  # ours, the publisher's, and this one

    watch(settings_for(valkey), scenario)


def test_unsubscribing_forgets_the_dream(valkey: Valkey) -> None:
    """After the last socket left, a new subscription begins at the end of the stream again."""

    async def scenario(events: Events, publisher: Publisher) -> None:
        events.unsubscribe(7, await subscribe(events, 7))
        publisher.publish(update(7, 1))
        subscription = await subscribe(events, 7)
        publisher.publish(update(7, 2))
        assert progress(await take(subscription, 1)) == [2]

    watch(settings_for(valkey), scenario)


@pytest.fixture
def send(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bool]]:
    """`send_image_update` of a process that is configured for this server."""
    from dream import settings

    monkeypatch.setenv("DREAM_BROKER_URL", valkey.url)
    monkeypatch.setenv("DREAM_REDIS_PREFIX", "test")
    settings.load.cache_clear()
    publish._default_publisher.cache_clear()
    yield notifications.send_image_update
    publish._default_publisher().close()
    publish._default_publisher.cache_clear()
    settings.load.cache_clear()


def test_send_image_update_takes_urls_and_dicts(valkey: Valkey, send: Callable[..., bool]) -> None:
    """URLs and dicts become images; what a dict lacks is filled in without posing as a stored image."""

    async def scenario(events: Events, _publisher: Publisher) -> None:
        subscription = await subscribe(events, 7)
        images = ["http://h/a", {"id": 5, "url": "http://h/b", "position": 3}, {"url": "http://h/c"}]
        assert await asyncio.to_thread(send, 7, images, "completed", "done", 100) is True
        assert await asyncio.to_thread(send, "7", status="failed") is True
        assert await asyncio.to_thread(send, 7, message="half a pair: \ud800") is True
        full, bare, odd = await take(subscription, 3)
        assert full["images"] == [
            {"id": -1, "url": "http://h/a", "position": 0},
            {"id": 5, "url": "http://h/b", "position": 3},
            {"id": -3, "url": "http://h/c", "position": 0},
        ]
        assert (full["status"], full["message"], full["progress"]) == ("completed", "done", 100)
        assert bare["dream_id"] == 7
        assert bare["images"] == []
        assert not {"message", "progress"} & bare.keys()
        assert odd["message"] == "half a pair: ?"

    watch(settings_for(valkey), scenario)


@pytest.mark.parametrize(
    "call",
    [
        {"status": "done"},
        {"progress": 101},
        {"progress": "half"},
        {"image_urls": "http://h/a"},
        {"image_urls": [{"id": 1}]},
        {"image_urls": [{"id": "x", "url": "u"}]},
        {"dream_id": "seven"},
        {"dream_id": float("inf")},
    ],
    ids=str,
)
def test_send_image_update_refuses_wrong_arguments(call: dict[str, Any]) -> None:
    """A wrong call is an error of the caller's, told at once, before Redis is asked."""
    with pytest.raises(InvalidArguments):
        notifications.send_image_update(**{"dream_id": 7, **call})


def test_importing_notifications_is_light() -> None:
    """A web process that imports `send_image_update` does not load Redis, Starlette or SQLAlchemy by that."""
    heavy = {"redis", "starlette", "sqlalchemy", "boto3", "pydantic"}
    code = f"import sys, dream.notifications; print(sorted({heavy} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}, timeout=60
    )
    assert output.stdout.strip() == "[]"

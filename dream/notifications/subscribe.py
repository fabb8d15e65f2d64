"""Events out of Redis: what a gateway process reads for all its sockets.

    channel ──► listener ──► "dream 7 has news" ──► pump ──► stream of 7 ──► every subscription to 7

One connection listens and one reads, however many sockets there are. The channel only wakes: what is delivered is
always read from the stream, after the last id that was delivered. So a restart of Redis loses nothing that is still
in the streams, and nothing comes twice. Where a stream no longer reaches back, subscribers are told of the gap and
take a snapshot from the database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from dream.log import get_logger
from dream.notifications import keys
from dream.notifications.subscription import SEQ, Event, Subscription, is_after

if TYPE_CHECKING:
    from redis.asyncio.client import PubSub

    from dream.settings import Settings

__all__ = ["Events"]

_CONNECT_TIMEOUT_S = 1
_SOCKET_TIMEOUT_S = 2
#: Silence after which the listening connection is asked whether it still lives.
_SILENCE_S = 3.0
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0
#: Work that went well for this long begins again with the shortest pause.
_STABLE_S = 10.0
_READ_AT_ONCE = 200
_START = "0-0"

log = get_logger(__name__)


@dataclass
class _Dream:
    """What the process knows about one dream that somebody watches."""

    #: The last id delivered; None while Redis could not be asked.
    seq: str | None = None
    subscriptions: set[Subscription] = field(default_factory=set)
    #: The connection was lost since the last read: does the stream still reach back to `seq`?
    must_check: bool = False


class Events:
    """The events of one gateway process. Use it on one event loop.

    Parameters:
      settings: where Redis is, and how far a socket may fall behind.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dreams: dict[int, _Dream] = {}
        self._unread: set[int] = set()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._client = self._connect()

    def _connect(self) -> Redis:
        pool = BlockingConnectionPool.from_url(
            self._settings.events_url,
            max_connections=2,  # one listens, one reads
            timeout=_SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            protocol=2,
            decode_responses=True,
        )
        return Redis.from_pool(pool)

    async def start(self) -> None:
        """Begin to listen. Redis need not be there yet."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="events-listener"),
            asyncio.create_task(self._pump(), name="events-pump"),
        ]

    async def stop(self) -> None:
        """Stop listening and close the connections."""
        # A cancellation that meets an answer of Redis can be swallowed by the client: ask until it is heard.
        while pending := [task for task in self._tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=_BACKOFF_FIRST_S)
        self._tasks = []
        await self._client.aclose()

    async def ping(self) -> None:
        """Ask Redis for an answer; raises its error where there is none."""
        await self._client.ping()

    async def subscribe(self, dream_id: int) -> Subscription:
        """Receive what happens to a dream from now on. Never fails: without Redis, events come once it is back."""
        if dream_id not in self._dreams:
            # First where the stream ends, then the entry: so that an event in between is read, not skipped.
            seq = await self._last_seq_if_up(dream_id)
            self._dreams.setdefault(dream_id, _Dream(seq))
        dream = self._dreams[dream_id]
        subscription = Subscription(dream_id, self._settings.socket_queue_size, dream.seq)
        dream.subscriptions.add(subscription)
        self._wake(dream_id)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering to a subscription."""
        dream = self._dreams.get(subscription.dream_id)
        if dream is not None:
            dream.subscriptions.discard(subscription)
            if not dream.subscriptions:
                del self._dreams[subscription.dream_id]

    async def since(self, dream_id: int, seq: str) -> list[Event] | None:
        """The events after `seq`, oldest first; None where the stream cannot tell (a snapshot must do).

        Parameters:
          dream_id: the dream.
          seq: the last event that the asker has seen, as it gave it.
        """
        if not SEQ.fullmatch(seq):
            return None
        try:
            if is_after(seq, await self._last_seq(dream_id)) or not await self._reaches_back(dream_id, seq):
                return None
            entries = await self._after(dream_id, seq, self._settings.events_max_length * 10)
            return [event for _, event in entries if event is not None]
        except RedisError as error:
            log.warning("events_not_read", dream_id=dream_id, error=str(error))
            return None

    def _stream(self, dream_id: int) -> str:
        return keys.stream(self._settings.redis_prefix, dream_id)

    async def _last_seq(self, dream_id: int) -> str:
        newest = await self._client.xrevrange(self._stream(dream_id), count=1)
        return str(newest[0][0]) if newest else _START

    async def _last_seq_if_up(self, dream_id: int) -> str | None:
        try:
            return await self._last_seq(dream_id)
        except RedisError:
            return None

    async def _reaches_back(self, dream_id: int, seq: str) -> bool:
        """Whether the stream still holds all that came after `seq`."""
        if seq == _START:
            return int(await self._client.xlen(self._stream(dream_id))) < self._settings.events_max_length
        return bool(await self._client.xrevrange(self._stream(dream_id), max=seq, min="-", count=1))

    async def _after(self, dream_id: int, seq: str, count: int) -> list[tuple[str, Event | None]]:
        """The entries after `seq`: the place of each, and its event, or None where it has none that we can read."""
        entries: Any = await self._client.xrange(self._stream(dream_id), min=f"({seq}", max="+", count=count)
        return [(entry, _event_of(entry, fields)) for entry, fields in entries]

    # --- the listener: one connection that hears which dreams have news

    async def _listen(self) -> None:
        await _persist(self._listen_once, "listening for events")

    async def _listen_once(self) -> None:
        pubsub: PubSub
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(keys.channel(self._settings.redis_prefix))
            is_asked = False
            while True:
                message = await pubsub.get_message(timeout=_SILENCE_S)
                if message is None and is_asked:
                    raise RedisConnectionError("no answer to a ping")
                is_asked = message is None
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "subscribe":
                    self._wake_all()
                elif message["type"] == "message":
                    self._wake_by(message["data"])

    def _wake_by(self, data: str) -> None:
        try:
            self._wake(int(json.loads(data)["dream_id"]))
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            log.warning("wake_not_understood", data=data[:100])

    def _wake_all(self) -> None:
        """After a (re)connect: anything may have been missed."""
        for dream_id, dream in self._dreams.items():
            dream.must_check = True
            self._wake(dream_id)

    def _wake(self, dream_id: int) -> None:
        if dream_id in self._dreams:
            self._unread.add(dream_id)
            self._news.set()

    # --- the pump: reads what is new and hands it out

    async def _pump(self) -> None:
        await _persist(self._pump_forever, "reading events")

    async def _pump_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._unread:
                dream_id = self._unread.pop()
                try:
                    await self._deliver(dream_id)
                except RedisError:
                    self._wake(dream_id)
                    raise

    async def _deliver(self, dream_id: int) -> None:
        dream = self._dreams.get(dream_id)
        if dream is None:
            return
        if dream.must_check or dream.seq is None:
            await self._find_place(dream_id, dream)
        while dream.seq is not None:
            entries = await self._after(dream_id, dream.seq, _READ_AT_ONCE)
            for seq, event in entries:
                for subscription in dream.subscriptions:
                    subscription.put(event)
                dream.seq = seq
            if len(entries) < _READ_AT_ONCE:
                return

    async def _find_place(self, dream_id: int, dream: _Dream) -> None:
        """Go on where we were; where that is not certain, tell of a gap."""
        last, seq = await self._last_seq(dream_id), dream.seq
        if seq is None or is_after(seq, last):  # never known, or Redis came back without its newest data
            dream.seq, is_gap = last, True
        else:
            is_gap = is_after(last, seq) and not await self._reaches_back(dream_id, seq)
        dream.must_check = False
        if is_gap:
            for subscription in dream.subscriptions:
                subscription.put(None)


def _event_of(entry: str, fields: dict[str, str]) -> Event | None:
    try:
        event = json.loads(fields["event"])
    except (KeyError, RecursionError, ValueError):
        event = None
    return event | {"seq": entry} if isinstance(event, dict) else None


async def _persist(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` for ever, again after each loss of Redis, with a growing pause."""
    loop = asyncio.get_running_loop()
    pause_s = _BACKOFF_FIRST_S
    while True:
        began = loop.time()
        try:
            await work()
        except (RedisError, OSError, ValueError, KeyError) as error:
            if loop.time() - began > _STABLE_S:
                pause_s = _BACKOFF_FIRST_S
            if pause_s == _BACKOFF_FIRST_S:  # once an outage, not once a try
                log.warning("events_interrupted", part=name, error=str(error))
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _BACKOFF_MAX_S)

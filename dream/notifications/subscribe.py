"""Read events from Redis for all sockets and streams of a gateway process.

    channel ──► listener ──► "dream 7 has news" ──► pump ──► stream of 7 ──► every subscriber to 7

One connection listens and one reads, for any number of them. The channel only wakes the pump, which reads the stream
from the last delivered id on. So a restart of Redis loses no event of its streams, and no event comes twice.
If a stream no longer reaches back, subscribers miss events and read a snapshot from the database.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from dream.log import get_logger
from dream.notifications.publish import events_key, wake_channel
from dream.observe import tracing
from dream.observe.metrics import EVENTS_SENT
from dream.observe.trace_context import TRACEPARENT
from dream.work.back_off import BackOff
from dream.work.redis_client import connect_async, master_of

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

    from dream.settings import Settings

__all__ = ["Event", "Events", "Subscriber", "is_after"]

_CONNECT_TIMEOUT_S = 1
_SOCKET_TIMEOUT_S = 2
#: The listening connection is pinged after this time without a message.
_SILENCE_S = 3.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
#: Entries that are read at a time, for all subscribers of a dream and for one that comes back.
_READ_AT_ONCE, _CAUGHT_UP_AT_ONCE = 200, 32
_START = "0-0"
#: The beginning of the number that a client gets while a stream has no event; the present time in ms follows it.
_BEFORE_ALL = "0-"

#: An event's id in its stream.
_SEQ = re.compile(r"\d{1,19}(-\d{1,19})?", re.ASCII)

log = get_logger(__name__)


def _place(seq: str) -> tuple[int, int]:
    milliseconds, _, number = seq.partition("-")
    return int(milliseconds), int(number or 0)


def is_after(seq: str, other: str) -> bool:
    """Whether an event came after another, by their ids in the stream."""
    return _place(seq) > _place(other)


class Event:
    """An `image_update` for browsers. Each form of its bytes is made once, for all subscribers.

    Parameters:
      seq: its id in the stream.
      fields: the fields of the message; `seq` is added.
    """

    __slots__ = ("_forms", "fields", "place", "seq")

    def __init__(self, seq: str, fields: dict[str, Any]) -> None:
        self.seq = seq
        self.place = _place(seq)
        self.fields = fields | {"seq": seq}
        self._forms: dict[Callable[[Event], bytes], bytes] = {}

    def form(self, make: Callable[[Event], bytes]) -> bytes:
        """The bytes that `make` returns for this event."""
        made = self._forms.get(make)
        if made is None:
            made = self._forms[make] = make(self)
        return made


class Subscriber(Protocol):
    """The methods that are called for a dream's events. They must not wait."""

    def deliver(self, event: Event) -> None:
        """Take the next event."""

    def miss(self) -> None:
        """Learn that events may be missing: read the database."""


class _Entry(NamedTuple):
    """An entry of a stream.

    Parameters:
      seq: its id.
      event: None if it cannot be read.
      traceparent: the span that published it, if its process traces.
    """

    seq: str
    event: Event | None
    traceparent: str | None


@dataclass(slots=True)
class _Dream:
    """A dream with subscribers."""

    #: The last delivered id; None while Redis did not answer.
    seq: str | None = None
    subscribers: set[Subscriber] = field(default_factory=set)
    #: Whether the connection was lost since the last read, so that the stream may not reach back to `seq`.
    must_check: bool = False


class Events:
    """The events of one gateway process. Use it on one event loop.

    Parameters:
      settings: the URL of Redis, and the length of its streams.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dreams: dict[int, _Dream] = {}
        self._unread: set[int] = set()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._client = self._connect()
        #: The master that was last listened to, if sentinels name one.
        self._master: object = None

    def _connect(self) -> Redis:
        return connect_async(
            self._settings.events_url,
            max_connections=2,  # one listens, one reads
            timeout_s=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            decode_responses=True,
        )

    async def start(self) -> None:
        """Begin to listen. Redis may still be away."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="events-listener"),
            asyncio.create_task(self._pump(), name="events-pump"),
        ]

    async def stop(self) -> None:
        """Stop listening and close the connections."""
        # The client can swallow a cancellation that meets an answer of Redis, so it is repeated.
        while pending := [task for task in self._tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=_FIRST_PAUSE_S)
        self._tasks = []
        await self._client.aclose()

    async def ping(self) -> None:
        """Ping Redis; raise its error if it does not answer."""
        await self._client.ping()

    async def subscribe(self, dream_id: int, subscriber: Subscriber) -> str | None:
        """Deliver a dream's events from now on. Without Redis this waits for no answer; events come once it is back.

        Returns:
          The newest event at the beginning, or a number before all events; None while Redis is down.
        """
        if dream_id not in self._dreams:
            # First read the end of the stream, then add the subscriber: an event in between is read, not skipped.
            seq = await self._last_seq_if_up(dream_id)
            self._dreams.setdefault(dream_id, _Dream(seq))
        dream = self._dreams[dream_id]
        dream.subscribers.add(subscriber)
        self._wake(dream_id)
        return f"{_BEFORE_ALL}{time.time_ns() // 1_000_000}" if dream.seq == _START else dream.seq

    def unsubscribe(self, dream_id: int, subscriber: Subscriber) -> None:
        """Stop delivering to a subscriber. A second call changes nothing."""
        dream = self._dreams.get(dream_id)
        if dream is not None:
            dream.subscribers.discard(subscriber)
            if not dream.subscribers:
                del self._dreams[dream_id]

    async def since(self, dream_id: int, seq: str) -> AsyncIterator[Event | None]:
        """The events after `seq`, oldest first; at last None if the stream does not reach back, or Redis is down.

        Few are in memory at a time, however long the caller needs for them.

        Parameters:
          dream_id: the dream.
          seq: the last event that the client has seen, in the client's words.
        """
        try:
            is_known = _SEQ.fullmatch(seq) is not None
            if is_known and not seq.startswith(_BEFORE_ALL):
                is_known = not is_after(seq, await self._last_seq(dream_id))
            while is_known and await self._reaches_back(dream_id, seq):
                entries = await self._after(dream_id, seq, _CAUGHT_UP_AT_ONCE)
                for entry in entries:
                    seq = entry.seq
                    if entry.event is not None:
                        yield entry.event
                if len(entries) < _CAUGHT_UP_AT_ONCE:
                    return
        except RedisError as error:
            log.warning("events_not_read", dream_id=dream_id, error=str(error))
        yield None

    def _stream(self, dream_id: int) -> str:
        return events_key(self._settings.redis_prefix, dream_id)

    async def _last_seq(self, dream_id: int) -> str:
        newest = await self._client.xrevrange(self._stream(dream_id), count=1)
        return str(newest[0][0]) if newest else _START

    async def _last_seq_if_up(self, dream_id: int) -> str | None:
        try:
            return await self._last_seq(dream_id)
        except RedisError:
            return None

    async def _reaches_back(self, dream_id: int, seq: str) -> bool:
        """Whether the stream still has all events after `seq`."""
        if seq.startswith(_BEFORE_ALL):
            _, given_ms = _place(seq)
            if given_ms and time.time() - given_ms / 1000 >= self._settings.events_ttl_s:
                return False  # events may have come and expired since
            return int(await self._client.xlen(self._stream(dream_id))) < self._settings.events_max_length
        return bool(await self._client.xrevrange(self._stream(dream_id), max=seq, min="-", count=1))

    async def _after(self, dream_id: int, seq: str, count: int) -> list[_Entry]:
        """The entries after `seq`."""
        entries: Any = await self._client.xrange(self._stream(dream_id), min=f"({seq}", max="+", count=count)
        return [_Entry(entry, _event_of(entry, fields), fields.get(TRACEPARENT)) for entry, fields in entries]

    # --- the listener: learns which dreams have news

    async def _listen(self) -> None:
        await _persist(self._listen_once, "listening for events")

    async def _listen_once(self) -> None:
        pubsub: PubSub
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(wake_channel(self._settings.redis_prefix))
            is_asked = False
            while True:
                message = await pubsub.get_message(timeout=_SILENCE_S)
                if message is None and is_asked:
                    raise RedisConnectionError("no answer to a ping")
                is_asked = message is None
                if message is None:
                    await self._client.ping()  # perhaps there is another master
                    if master_of(self._client) != self._master:
                        raise RedisConnectionError("another Redis is the master now")
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
        """Read all streams after a (re)connect: messages may have been missed.

        A new master may lack the last entries of the old one, and the stream does not show it: its readers get a gap.
        """
        before, self._master = self._master, master_of(self._client)
        for dream_id, dream in self._dreams.items():
            dream.must_check = True
            if before not in (None, self._master):
                dream.seq = None
            self._wake(dream_id)

    def _wake(self, dream_id: int) -> None:
        if dream_id in self._dreams:
            self._unread.add(dream_id)
            self._news.set()

    # --- the pump: reads new events and delivers them

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
                except Exception:
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
            for seq, event, traceparent in entries:
                subscribers = tuple(dream.subscribers)
                with tracing.delivering(traceparent, len(subscribers)):
                    for subscriber in subscribers:
                        if event is None:
                            subscriber.miss()
                        else:
                            subscriber.deliver(event)
                EVENTS_SENT.add(amount=len(subscribers))
                dream.seq = seq
            if len(entries) < _READ_AT_ONCE:
                return

    async def _find_place(self, dream_id: int, dream: _Dream) -> None:
        """Go on after the last delivered id; deliver a gap if events may be missing."""
        last, seq = await self._last_seq(dream_id), dream.seq
        if seq is None or is_after(seq, last):  # unknown, or Redis has lost its newest entries
            dream.seq, is_gap = last, True
        else:
            is_gap = is_after(last, seq) and not await self._reaches_back(dream_id, seq)
        dream.must_check = False
        if is_gap:
            for subscriber in tuple(dream.subscribers):
                subscriber.miss()


def _event_of(entry: str, fields: dict[str, str]) -> Event | None:
    try:
        event = json.loads(fields["event"])
    except (KeyError, RecursionError, ValueError):
        event = None
    return Event(entry, event) if isinstance(event, dict) else None


async def _persist(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` for ever. Restart it after each loss of Redis, and after any other error, with a growing pause."""
    loop = asyncio.get_running_loop()
    back_off = BackOff(first_s=_FIRST_PAUSE_S, max_s=_LONGEST_PAUSE_S)
    while True:
        began, interruption = loop.time(), None
        try:
            await work()
        except (RedisError, OSError, ValueError, KeyError) as error:
            interruption = str(error)
        except Exception:
            log.exception("events_failed", part=name)  # without this work no socket gets an event
        pause_s = back_off.next_pause_s(loop.time() - began)
        if interruption is not None and back_off.failures == 1:  # once for each outage
            log.warning("events_interrupted", part=name, error=interruption)
        await asyncio.sleep(pause_s)

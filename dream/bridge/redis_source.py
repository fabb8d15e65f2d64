"""Celery's messages in Redis, as kombu keeps them.

<queue>, <queue>\\x06\\x163, …   lists: pushed left, popped right; one for each step of priority
/<database>.celery.pidbox       the channel of Celery's remote control
unacked, unacked_index          messages of workers: tag → [message, exchange, routing key], tag → time of the fetch
_kombu.binding.<exchange>       the queues that are bound to an exchange
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError

from dream.bridge.protocol import Taken
from dream.bridge.revocations import EXCHANGE, Revocation, revocation_in
from dream.bridge.sources import MOST_BYTES, celerys_queues
from dream.fault_points import step
from dream.log import get_logger
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["RedisSource"]

log = get_logger(__name__)

#: Lists of one queue, the most urgent first: kombu's own steps are 0, 3, 6, 9.
_PRIORITIES = range(10)
#: The bridge does not read queues of Celery's remote control and events.
_NOT_TASKS = (EXCHANGE, "celeryev")
_PEEK_AT_ONCE = 200
#: Queues may be created while the bridge runs. A search for them reads all keys of that Redis, so searches may take
#: only this share of the time.
_FIND_EVERY_S = 5.0
_MOST_FINDING = 0.05


class RedisSource:
    """See `dream.bridge.sources.Source`; the parameters are of `dream.bridge.run.open_source`."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        queues: Sequence[str],
        take_unacked: bool,
        visibility_timeout_s: float,
        key_prefix: str,
        separator: str,
    ) -> None:
        self._client: Any = connect(url, repeats=False)
        self._queues = queues
        self._take_unacked = take_unacked
        self._visibility_timeout_s = visibility_timeout_s
        self._key_prefix = key_prefix
        self._separator = separator
        self.in_flight_key = f"{settings.redis_prefix}:bridge:in_flight"
        self._keys = [self.in_flight_key, f"{settings.redis_prefix}:bridge:taken"]
        self._lists: list[tuple[str, str]] = []
        self._foreign: set[str] = set()
        self._bindings: dict[str, list[tuple[str, str]]] = {}
        self._find_again_at = 0.0
        self._broadcasts: _Broadcasts | None = None
        self._pop = self._script("take.lua")
        self._pop_unacked = self._script("take_unacked.lua")

    def _script(self, name: str) -> Any:
        return self._client.register_script(Path(__file__).with_name(name).read_text())

    def begin(self) -> Sequence[Taken]:
        self._stop_listening()
        self._find()
        held = self._client.hgetall(self.in_flight_key)
        return [self._taken(tag, held[tag]) for tag in sorted(held, key=int)]

    @step("bridge_take")
    def take(self, most: int) -> Sequence[Taken]:
        if time.monotonic() >= self._find_again_at:
            self._find()
        found = self._pop(keys=self._keys, args=[most, MOST_BYTES, *chain.from_iterable(self._lists)])
        if not found and (tags := self._abandoned()[:most]):
            found = self._pop_unacked(keys=[*self._keys, *self._unacked_keys()], args=[MOST_BYTES, *tags])
        return [self._taken(tag, value) for tag, value in zip(found[::2], found[1::2], strict=True)]

    def _abandoned(self) -> list[bytes]:
        """The messages that Celery's workers took and did not acknowledge in time, by their tags."""
        unacked, index = self._unacked_keys()
        if self._take_unacked:
            tags = self._client.hkeys(unacked)
        else:
            tags = self._client.zrangebyscore(index, "-inf", time.time() - self._visibility_timeout_s)
        if not self._queues or not tags:
            return list(tags)
        values = self._client.hmget(unacked, tags)
        return [
            tag
            for tag, value in zip(tags, values, strict=True)
            if value and self._taken(tag, b"\n" + value).queue in self._queues
        ]

    @step("bridge_remove")
    def done(self, taken: Sequence[Taken]) -> None:
        if taken:
            self._client.hdel(self.in_flight_key, *[each.tag for each in taken])

    parked = done

    def revocations(self) -> Sequence[Revocation]:
        if self._broadcasts is None:
            self._broadcasts = _Broadcasts(self._client, self._key_prefix)
        return self._broadcasts.revocations()

    def waiting(self) -> int:
        with self._client.pipeline(transaction=False) as pipe:
            for _, key in self._lists:
                pipe.llen(key)
            pipe.hlen(self.in_flight_key)
            return sum(pipe.execute())

    def peek(self) -> Iterator[Taken]:
        yield from self.begin()
        for queue, key in self._lists:
            for start in range(0, self._client.llen(key), _PEEK_AT_ONCE):
                for message in self._client.lrange(key, start, start + _PEEK_AT_ONCE - 1):
                    yield self._taken(b"", queue.encode() + b"\n" + message)
        abandoned = set(self._abandoned())
        for tag, message in self._client.hscan_iter(self._unacked_keys()[0]):
            taken = self._taken(tag, b"\n" + message)
            if not self._queues or taken.queue in self._queues:
                yield replace(taken, is_held=tag not in abandoned)

    @cache  # noqa: B019 (there is one source in a process, and two brokers)
    def is_on(self, url: str) -> bool:
        if url.startswith("amqp"):
            return False
        with connect(url) as other:
            ours, theirs = self._client.info("server"), other.info("server")
            same_db = self._client.get_connection_kwargs().get("db", 0) == other.get_connection_kwargs().get("db", 0)
            return bool(same_db and ours["run_id"] == theirs["run_id"])

    def close(self) -> None:
        self._stop_listening()
        self._client.close()

    def _stop_listening(self) -> None:
        broadcasts, self._broadcasts = self._broadcasts, None
        if broadcasts is not None:
            broadcasts.close()

    # --- keys

    def _find(self) -> None:
        """Find the lists of the queues: those that exist, and those that may be created."""
        begun = time.monotonic()
        self._bindings = self._bound()
        bound = {queue for pairs in self._bindings.values() for _, queue in pairs}
        queues = sorted(self._queues or {*celerys_queues(), *bound})
        self._lists = self._readable([(queue, self._list_of(queue, step)) for step in _PRIORITIES for queue in queues])
        ended = time.monotonic()
        self._find_again_at = ended + max(_FIND_EVERY_S, (ended - begun) / _MOST_FINDING)

    def _readable(self, lists: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The keys that are lists or do not exist yet. A key of another type is left out, with a warning."""
        with self._client.pipeline(transaction=False) as pipe:
            for _, key in lists:
                pipe.type(key)
            kinds = pipe.execute()
        foreign = {key: kind for (_, key), kind in zip(lists, kinds, strict=True) if kind not in (b"list", b"none")}
        for key in foreign.keys() - self._foreign:
            log.warning("key_is_no_queue", key=key, type=foreign[key].decode())
        self._foreign = set(foreign)
        return [each for each in lists if each[1] not in foreign]

    def _list_of(self, queue: str, priority: int) -> str:
        return self._key_prefix + (f"{queue}{self._separator}{priority}" if priority else queue)

    def _unacked_keys(self) -> list[str]:
        return [f"{self._key_prefix}unacked", f"{self._key_prefix}unacked_index"]

    def _bound(self) -> dict[str, list[tuple[str, str]]]:
        """The pairs of routing key and queue, by exchange."""
        found: dict[str, list[tuple[str, str]]] = {}
        prefix = f"{self._key_prefix}_kombu.binding."
        for key in self._client.scan_iter(_literally(prefix) + "*", count=1000):
            pairs = found.setdefault(key.decode(errors="replace").removeprefix(prefix), [])
            for member in self._client.smembers(key):
                routing_key, _, rest = member.decode(errors="replace").partition(self._separator)
                queue = rest.rpartition(self._separator)[2]
                if queue and not any(name in queue for name in _NOT_TASKS):
                    pairs.append((routing_key, queue))
        return found

    def _queue_of(self, exchange: str, routing_key: str) -> str:
        bound = dict(self._bindings.get(exchange, ()))
        return bound.get(routing_key) or (next(iter(bound.values())) if len(bound) == 1 else routing_key)

    def _taken(self, tag: bytes, value: bytes) -> Taken:
        queue, _, message = value.partition(b"\n")
        try:
            raw = json.loads(message)
        except (RecursionError, ValueError):
            return Taken(tag.decode(), queue.decode(), message)
        if not queue and isinstance(raw, list) and len(raw) == 3:  # a worker's: [message, exchange, routing key]
            queue_name = self._queue_of(str(raw[1]), str(raw[2]))
            return Taken(tag.decode(), queue_name, raw[0] if isinstance(raw[0], dict) else message)
        return Taken(tag.decode(), queue.decode(), raw if isinstance(raw, dict) else message)


class _Broadcasts:
    """Receives broadcasts to Celery's workers."""

    def __init__(self, client: Any, key_prefix: str) -> None:
        database = client.get_connection_kwargs().get("db", 0)
        self._channel = f"{key_prefix}/{database}.{EXCHANGE}"
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(self._channel)

    def revocations(self) -> list[Revocation]:
        found = []
        try:
            while (message := self._pubsub.get_message()) is not None:
                with contextlib.suppress(RecursionError, ValueError):  # anybody may publish anything there
                    found.append(revocation_in(json.loads(message["data"])))
        except NoPermissionError as error:
            log.warning("revocations_not_heard", channel=self._channel, error=str(error))
            self._pubsub.reset()  # subscribed to nothing, it gets no message
        return [each for each in found if each is not None]

    def close(self) -> None:
        self._pubsub.close()


def _literally(text: str) -> str:
    """A Redis pattern that matches exactly this text."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)

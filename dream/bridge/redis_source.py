"""Celery's messages in Redis, as kombu keeps them.

<queue>, <queue>\\x06\\x163, …   lists: pushed left, popped right; one for each step of priority
unacked, unacked_index          what workers have taken: tag → [message, exchange, routing key], tag → when
_kombu.binding.<exchange>       the queues that are bound there
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream.bridge.protocol import Taken
from dream.bridge.sources import CELERYS_QUEUES, MOST_BYTES
from dream.broker.redis import make_client
from dream.fault_points import step
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["RedisSource"]

log = get_logger(__name__)

_SEPARATOR = "\x06\x16"
#: Lists of one queue, the most urgent first: kombu's own steps are 0, 3, 6, 9.
_PRIORITIES = range(10)
#: Queues of Celery's remote control and of its events are none of ours.
_NOT_TASKS = ("celery.pidbox", "celeryev")
_PEEK_AT_ONCE = 200


class RedisSource:
    """See `dream.bridge.sources`."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        queues: Sequence[str],
        take_unacked: bool,
        visibility_timeout_s: float,
        key_prefix: str,
    ) -> None:
        self._client: Any = make_client(url)
        self._queues = queues
        self._take_unacked = take_unacked
        self._visibility_timeout_s = visibility_timeout_s
        self._key_prefix = key_prefix
        self.in_flight_key = f"{settings.redis_prefix}:bridge:in_flight"
        self._keys = [self.in_flight_key, f"{settings.redis_prefix}:bridge:taken"]
        self._lists: list[tuple[str, str]] = []
        self._pop = self._script("take.lua")
        self._pop_unacked = self._script("take_unacked.lua")

    def _script(self, name: str) -> Any:
        return self._client.register_script(Path(__file__).with_name(name).read_text())

    def begin(self) -> Sequence[Taken]:
        queues = sorted(self._queues or {*CELERYS_QUEUES, *self._bound()})
        self._lists = self._readable([(queue, self._list_of(queue, step)) for step in _PRIORITIES for queue in queues])
        held = self._client.hgetall(self.in_flight_key)
        return [_taken(tag, held[tag]) for tag in sorted(held, key=int)]

    @step("bridge_take")
    def take(self, most: int) -> Sequence[Taken]:
        found = self._pop(keys=self._keys, args=[most, MOST_BYTES, *chain.from_iterable(self._lists)])
        if not found:
            found = self._pop_unacked(
                keys=[*self._keys, *self._unacked_keys()], args=[most, MOST_BYTES, self._taken_before()]
            )
        return [_taken(tag, value) for tag, value in zip(found[::2], found[1::2], strict=True)]

    @step("bridge_remove")
    def done(self, taken: Sequence[Taken]) -> None:
        if taken:
            self._client.hdel(self.in_flight_key, *[each.tag for each in taken])

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
                    yield _taken(b"", queue.encode() + b"\n" + message)
        for _, message in self._client.hscan_iter(self._unacked_keys()[0]):
            yield _taken(b"", b"\n" + message)

    @cache  # noqa: B019 (there is one source in a process, and two brokers)
    def is_on(self, url: str) -> bool:
        if not url.startswith(("redis", "unix")):
            return False
        with make_client(url) as other:
            ours, theirs = self._client.info("server"), other.info("server")
            same_db = self._client.get_connection_kwargs().get("db", 0) == other.get_connection_kwargs().get("db", 0)
            return bool(same_db and ours["run_id"] == theirs["run_id"])

    def close(self) -> None:
        self._client.close()

    # --- keys

    def _readable(self, lists: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those that are lists or may become some: somebody else's key does not keep the others from being read."""
        with self._client.pipeline(transaction=False) as pipe:
            for _, key in lists:
                pipe.type(key)
            kinds = pipe.execute()
        for (_, key), kind in zip(lists, kinds, strict=True):
            if kind not in (b"list", b"none"):
                log.warning("key_is_no_queue", key=key, type=kind.decode())
        return [each for each, kind in zip(lists, kinds, strict=True) if kind in (b"list", b"none")]

    def _list_of(self, queue: str, priority: int) -> str:
        return self._key_prefix + (f"{queue}{_SEPARATOR}{priority}" if priority else queue)

    def _unacked_keys(self) -> list[str]:
        return [f"{self._key_prefix}unacked", f"{self._key_prefix}unacked_index"]

    def _taken_before(self) -> str:
        return "" if self._take_unacked else str(time.time() - self._visibility_timeout_s)

    def _bound(self) -> set[str]:
        found = set()
        for key in self._client.scan_iter(f"{self._key_prefix}_kombu.binding.*", count=1000):
            for member in self._client.smembers(key):
                queue = member.decode().rpartition(_SEPARATOR)[2]
                if queue and not any(name in queue for name in _NOT_TASKS):
                    found.add(queue)
        return found


def _taken(tag: bytes, value: bytes) -> Taken:
    queue, _, message = value.partition(b"\n")
    try:
        raw = json.loads(message)
    except (RecursionError, ValueError):
        return Taken(tag.decode(), queue.decode(), message)
    if not queue and isinstance(raw, list) and len(raw) == 3:  # of a worker: [message, exchange, routing key]
        return Taken(tag.decode(), str(raw[2]), raw[0] if isinstance(raw[0], dict) else message)
    return Taken(tag.decode(), queue.decode(), raw if isinstance(raw, dict) else message)

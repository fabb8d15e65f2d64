"""What the bridge did not understand: kept with its reason until somebody replays it. Nothing is thrown away."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dream.bridge.protocol import Taken, task_of
from dream.broker.redis import make_client
from dream.fault_points import step

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Parked", "ParkingPlace"]

_ID_LENGTH = 16


@dataclass(frozen=True)
class Parked:
    """A message that waits for somebody's word.

    Parameters:
      taken: the message; its tag is the id under which it is parked.
      reason: why it was not handed over.
      at: when (ISO 8601).
    """

    taken: Taken
    reason: str
    at: str

    @property
    def task(self) -> str:
        """Its task's name, as far as it says one."""
        return task_of(self.taken)


class ParkingPlace:
    """A hash in `DREAM_REDIS_URL`; an entry's name is made of its bytes, so that nothing is parked twice.

    Parameters:
      settings: where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: Any = make_client(settings.events_url)
        self._key = f"{settings.redis_prefix}:bridge:parked"

    @step("bridge_park")
    def put(self, refused: Sequence[tuple[Taken, str]]) -> None:
        """Keep these, each with its reason."""
        if refused:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self._client.hset(self._key, mapping=dict(_entry(taken, reason, at) for taken, reason in refused))

    def all(self) -> Iterator[Parked]:
        """All that is parked."""
        for tag, text in self._client.hscan_iter(self._key):
            yield _parked(tag.decode(), text)

    def find(self, tag: str) -> Parked | None:
        text = self._client.hget(self._key, tag)
        return None if text is None else _parked(tag, text)

    def remove(self, tags: Sequence[str]) -> None:
        if tags:
            self._client.hdel(self._key, *tags)

    def close(self) -> None:
        self._client.close()


def _entry(taken: Taken, reason: str, at: str) -> tuple[str, str]:
    raw: Any = taken.raw
    if isinstance(raw, bytes):
        raw = {"base64": base64.b64encode(raw).decode()}
    message = json.dumps([taken.queue, raw], default=str, sort_keys=True)
    tag = hashlib.sha256(message.encode()).hexdigest()[:_ID_LENGTH]
    return tag, json.dumps({"reason": reason, "at": at, "queue": taken.queue, "message": raw}, default=str)


def _parked(tag: str, text: bytes) -> Parked:
    kept = json.loads(text)
    raw = kept["message"]
    if raw.keys() == {"base64"}:
        raw = base64.b64decode(raw["base64"])
    return Parked(Taken(tag, kept["queue"], raw), kept["reason"], kept["at"])

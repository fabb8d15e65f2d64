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
from dream.fault_points import step
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Parked", "ParkingPlace"]

_ID_LENGTH = 16


@dataclass(frozen=True)
class Parked:
    """A message that waits for somebody's word; its JSON is held by a golden test (`tests/unit/test_bridge_parked.py`).

    Parameters:
      taken: the message; of one that was parked its tag is its id.
      reason: why it was not handed over.
      at: when (ISO 8601).
    """

    taken: Taken
    reason: str
    at: str

    @property
    def id(self) -> str:
        """What it is called, which is made of its bytes: nothing is parked twice."""
        name, raw = self._message()
        text = _json([self.taken.queue, {name: raw}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]

    @property
    def task(self) -> str:
        """Its task's name, as far as it says one."""
        return task_of(self.taken)

    def encode(self) -> str:
        name, raw = self._message()
        return _json({"reason": self.reason, "at": self.at, "queue": self.taken.queue, name: raw})

    @classmethod
    def decode(cls, parked_id: str, text: str | bytes) -> Parked:
        """What was parked under that id."""
        kept = json.loads(text)
        raw = kept["message"] if "message" in kept else base64.b64decode(kept["bytes"])
        return cls(Taken(parked_id, kept["queue"], raw), kept["reason"], kept["at"])

    def _message(self) -> tuple[str, Any]:
        """As what it is kept: the message, or in base64 the bytes of one that is none."""
        raw = self.taken.raw
        return ("bytes", base64.b64encode(raw).decode()) if isinstance(raw, bytes) else ("message", raw)


class ParkingPlace:
    """A hash in `DREAM_REDIS_URL`.

    Parameters:
      settings: where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: Any = connect(settings.events_url, repeats=False)
        self._key = f"{settings.redis_prefix}:bridge:parked"

    @step("bridge_park")
    def put(self, refused: Sequence[tuple[Taken, str]]) -> list[Parked]:
        """Keep these, each with its reason."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        parked = [Parked(taken, reason, at) for taken, reason in refused]
        if parked:
            self._client.hset(self._key, mapping={each.id: each.encode() for each in parked})
        return parked

    def all(self) -> Iterator[Parked]:
        """All that is parked."""
        for parked_id, text in self._client.hscan_iter(self._key):
            yield Parked.decode(parked_id.decode(), text)

    def find(self, parked_id: str) -> Parked | None:
        text = self._client.hget(self._key, parked_id)
        return None if text is None else Parked.decode(parked_id, text)

    def remove(self, parked_ids: Sequence[str]) -> None:
        if parked_ids:
            self._client.hdel(self._key, *parked_ids)

    def close(self) -> None:
        self._client.close()


def _json(value: Any, *, sort_keys: bool = False) -> str:
    # AMQP's headers may have times and bytes.
    return json.dumps(value, default=str, sort_keys=sort_keys)

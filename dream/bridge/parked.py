"""Parked messages: the bridge did not understand them, and keeps each with its reason until it is replayed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dream.bridge.handover import Moved
from dream.bridge.protocol import Taken, task_of
from dream.errors import InvalidArguments
from dream.fault_points import step
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.bridge.handover import Handover
    from dream.settings import Settings

__all__ = ["Parked", "ParkingPlace", "replayed"]

_ID_LENGTH = 16


@dataclass(frozen=True)
class Parked:
    """A message that waits for a replay; its JSON is held by a golden test (`tests/unit/test_bridge_parked.py`).

    Parameters:
      taken: the message; the tag of a parked one is its id.
      reason: why it was not handed over.
      at: when (ISO 8601).
    """

    taken: Taken
    reason: str
    at: str

    @property
    def id(self) -> str:
        """Its ID, a hash of its bytes, so that no message is parked twice."""
        name, raw = self._message()
        text = _json([self.taken.queue, {name: raw}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]

    @property
    def task(self) -> str:
        """The name of its task; "-" if it names none."""
        return task_of(self.taken)

    def encode(self) -> str:
        name, raw = self._message()
        return _json({"reason": self.reason, "at": self.at, "queue": self.taken.queue, name: raw})

    @classmethod
    def decode(cls, parked_id: str, text: str | bytes) -> Parked:
        """The message that was parked under that ID."""
        kept = json.loads(text)
        raw = kept["message"] if "message" in kept else base64.b64decode(kept["bytes"])
        return cls(Taken(parked_id, kept["queue"], raw), kept["reason"], kept["at"])

    def _message(self) -> tuple[str, Any]:
        """The stored form: the message, or its bytes in base64 if they are no message."""
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
        """Store messages, each with its reason."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        parked = [Parked(taken, reason, at) for taken, reason in refused]
        if parked:
            self._client.hset(self._key, mapping={each.id: each.encode() for each in parked})
        return parked

    def all(self) -> Iterator[Parked]:
        """All parked messages."""
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


def replayed(place: ParkingPlace, handover: Handover, tags: Sequence[str] | None) -> Moved:
    """Hand over these messages, or all. A message that is still not understood stays, with its new reason.

    Raises:
      InvalidArguments: no message is parked under one of the ids.
    """
    if tags is None:
        chosen = list(place.all())
    else:
        found = {tag: place.find(tag) for tag in tags}
        missing = [tag for tag, each in found.items() if each is None]
        if missing:
            raise InvalidArguments(f"nothing is parked as {missing[0]}: `dream bridge parked` shows what is")
        chosen = [each for each in found.values() if each is not None]
    refused, understood = handover.sort(each.taken for each in chosen)
    moved = Moved(parked=len(refused))
    handover.move(_Place(place, handover), [taken for taken, _ in understood], moved)
    handover.park(refused)
    return moved


class _Place:
    """The parking place as the origin of messages."""

    in_flight_key = ""

    def __init__(self, place: ParkingPlace, handover: Handover) -> None:
        self._place = place
        self._handover = handover

    def done(self, taken: Sequence[Taken]) -> None:
        self._handover.forget_failures(taken)
        self._place.remove([each.tag for each in taken])

    def parked(self, taken: Sequence[Taken]) -> None:
        """Do nothing: each message keeps its name, which is a hash of its bytes."""

    def is_on(self, url: str) -> bool:  # noqa: ARG002
        return False


def _json(value: Any, *, sort_keys: bool = False) -> str:
    # AMQP's headers may have times and bytes.
    return json.dumps(value, default=str, sort_keys=sort_keys)

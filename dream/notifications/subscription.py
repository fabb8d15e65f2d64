"""What one socket still has to be told: events in their order, a bounded number of them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

__all__ = ["SEQ", "Event", "Subscription", "is_after"]

#: An `image_update` as it goes to the browser, `seq` in it.
Event = dict[str, Any]
#: An event's place in its stream, as Redis writes it.
SEQ = re.compile(r"\d{1,19}(-\d{1,19})?", re.ASCII)


def _place(seq: str) -> tuple[int, int]:
    milliseconds, _, number = seq.partition("-")
    return int(milliseconds), int(number or 0)


def is_after(seq: str, other: str) -> bool:
    """Whether an event came after another, by their stream ids."""
    return _place(seq) > _place(other)


class Subscription:
    """One socket's queue of a dream's events.

    Parameters:
      dream_id: the dream.
      size: how many events its reader may be behind.
      seq: the newest event there was when the subscription began; None while Redis is down.
    """

    def __init__(self, dream_id: int, size: int, seq: str | None) -> None:
        self.dream_id = dream_id
        self.seq = seq
        #: Set when the reader was too slow: it has lost events and must be cut.
        self.overflowed = asyncio.Event()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(size)

    def put(self, event: Event | None) -> None:
        """Queue an event, or None for a gap; never waits."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.overflowed.set()

    async def get(self) -> Event | None:
        """The next event; None means that events may be missing here: read the database."""
        return await self._queue.get()

"""The protocol of Celery's brokers as sources of messages: Redis and RabbitMQ implement it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from dream.compat.host import host

if TYPE_CHECKING:
    from dream.bridge.protocol import Taken
    from dream.bridge.revocations import Revocation

__all__ = ["MOST_BYTES", "Origin", "Source", "celerys_queues"]

#: The bytes of one step: memory holds its messages several times, and they may contain pictures.
MOST_BYTES = 32 * 2**20


def celerys_queues() -> tuple[str, ...]:
    """Celery's own default queue, and those of the host."""
    return ("celery", *host().queues)


class Origin(Protocol):
    """The place that keeps taken messages until they are handed over or parked."""

    #: The hash of messages in flight if they are in a Redis; else "".
    in_flight_key: str

    def done(self, taken: Sequence[Taken]) -> None:
        """Forget messages that are handed over."""
        ...

    def parked(self, taken: Sequence[Taken]) -> None:
        """Forget messages that are parked; the parking place itself forgets none."""
        ...

    def is_on(self, url: str) -> bool:
        """Whether the URL names the same database of the same server."""
        ...


class Source(Origin, Protocol):
    """A broker with Celery's messages."""

    def begin(self) -> Sequence[Taken]:
        """Connect again, and return messages that were taken earlier and are not done."""
        ...

    def take(self, most: int) -> Sequence[Taken]:
        """Take at most that many messages, the most urgent first; stop after `MOST_BYTES`."""
        ...

    def revocations(self) -> Sequence[Revocation]:
        """The revocations of Celery's producers since the last call; the first call begins to listen."""
        ...

    def waiting(self) -> int:
        """The number of messages that wait."""
        ...

    def peek(self) -> Iterator[Taken]:
        """Read all messages that wait, and leave them there."""
        ...

    def close(self) -> None: ...

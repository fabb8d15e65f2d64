"""Where Celery's messages come from: what both kinds of broker can do, and how one is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from dream.compat.addresses import client_url
from dream.messages import QUEUES

if TYPE_CHECKING:
    from dream.bridge.protocol import Taken
    from dream.bridge.revocations import Revocation
    from dream.settings import Settings

__all__ = ["CELERYS_QUEUES", "MOST_BYTES", "Origin", "Source", "open_source"]

#: Celery's own default queue, and the documented ones.
CELERYS_QUEUES = ("celery", *QUEUES)
#: What is taken in one step is in memory several times over: messages may have pictures in them.
MOST_BYTES = 32 * 2**20


class Origin(Protocol):
    """Where messages stay that were taken, until they are handed over or parked."""

    #: The hash of what is in flight, where that is in a Redis; else "".
    in_flight_key: str

    def done(self, taken: Sequence[Taken]) -> None:
        """They are handed over: forget them."""
        ...

    def parked(self, taken: Sequence[Taken]) -> None:
        """They are parked: forget them, unless it is the parking place that they were taken from."""
        ...

    def is_on(self, url: str) -> bool:
        """Whether that URL leads to the same database of the same server."""
        ...


class Source(Origin, Protocol):
    """A broker with Celery's messages."""

    def begin(self) -> Sequence[Taken]:
        """Connect anew, and give what was taken earlier and is not done."""
        ...

    def take(self, most: int) -> Sequence[Taken]:
        """Take that many messages at most, and no further one after `MOST_BYTES`; the most urgent first."""
        ...

    def revocations(self) -> Sequence[Revocation]:
        """What Celery's producers have revoked since the last look; the first begins to listen."""
        ...

    def waiting(self) -> int:
        """How many messages wait."""
        ...

    def peek(self) -> Iterator[Taken]:
        """All that waits, which stays where it is."""
        ...

    def close(self) -> None: ...


def open_source(
    settings: Settings,
    url: str,
    queues: Sequence[str] = (),
    *,
    app_queues: Iterable[str] = (),
    take_unacked: bool = False,
    visibility_timeout_s: float = 3600,
    key_prefix: str = "",
    separator: str = "\x06\x16",
) -> Source:
    """Celery's broker.

    Parameters:
      url: as in Celery's `broker_url`.
      queues: Celery's names; by default `CELERYS_QUEUES`; in Redis also all that kombu has bound there; in RabbitMQ,
        which shows nobody what is bound, also `app_queues`.
      app_queues: those that the producers' app names.
      take_unacked: Redis: take at once what Celery's workers have taken; only when none of them runs.
      visibility_timeout_s: Redis: take it after that long, as Celery's own workers do.
      key_prefix: Redis: `global_keyprefix` of the senders.
      separator: Redis: `sep` of the senders.

    Raises:
      InvalidArguments: it cannot be read from such a broker.
    """
    url = client_url(url, "--from")
    if url.startswith("amqp"):
        from dream.bridge.rabbitmq_source import RabbitmqSource

        return RabbitmqSource(settings, url, queues or sorted({*CELERYS_QUEUES, *app_queues}))
    from dream.bridge.redis_source import RedisSource

    return RedisSource(settings, url, queues, take_unacked, visibility_timeout_s, key_prefix, separator)

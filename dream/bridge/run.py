"""The bridge's loop: open the source, take messages, hand them over, and start again after an outage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dramatiq.errors import BrokerError

from dream.bridge.handover import Moved
from dream.bridge.redis_source import RedisSource
from dream.bridge.revocations import Revocation, merged
from dream.bridge.sources import celerys_queues
from dream.compat.adoption import client_url
from dream.errors import DreamError, SettingsError
from dream.log import get_logger
from dream.settings.types import check_package
from dream.work.back_off import BackOff
from dream.work.broker import client_errors

if TYPE_CHECKING:
    from dream.bridge.handover import Handover
    from dream.bridge.protocol import Taken
    from dream.bridge.sources import Source
    from dream.settings import Settings

__all__ = ["Bridge", "open_source"]

log = get_logger(__name__)

#: Messages in one step: enough to be quick, few enough to be replayed quickly.
_AT_ONCE = 200
_LOOK_EVERY_S = 0.2


def _outages() -> tuple[type[Exception], ...]:
    """The errors of a server that is away for a while."""
    return (*client_errors(), BrokerError, DreamError)


class Bridge:
    """One bridge; several at a time do no harm.

    Parameters:
      source: where Celery's messages are.
      handover: gives them to the host, puts them on a queue or parks them.
    """

    def __init__(self, source: Source, handover: Handover) -> None:
        self._source = source
        self._handover = handover
        self._revocations: list[Revocation] = []
        self.moved = Moved()

    def run(
        self,
        stopped: Callable[[float], bool],
        *,
        drain: bool,
        report: Callable[[Moved], None] = lambda _: None,
        report_every_s: float = 2.0,
        lives: Callable[[bool], None] = lambda _: None,
    ) -> Moved:
        """Move messages until told to stop.

        Parameters:
          stopped: waits that many seconds for the order to stop, and returns whether it came. The step in work is
            finished first.
          drain: end when no message waits any more.
          report: called from time to time with the counts so far.
          lives: called after each step, with whether the servers answered.

        Raises:
          AMQPError, RedisError, OSError: the source was away at the start. Later outages are waited out.
        """
        held: Sequence[Taken] | None = self._source.begin()
        back_off, next_report = BackOff(), time.monotonic() + report_every_s
        wait_s = 0.0
        while not stopped(wait_s):
            try:
                held = self._replay(self._source.begin() if held is None else held)
                self._revoke()
                count = self._step()
                if time.monotonic() >= next_report:
                    report(self.moved)
                    next_report = time.monotonic() + report_every_s
            except _outages() as error:
                if isinstance(error, DreamError) and error.permanent:
                    raise
                wait_s, held = back_off.next_pause_s(), None
                log.warning("bridge_waits", error=f"{type(error).__name__}: {error}", again_in_s=wait_s)
                lives(False)
                continue
            lives(True)
            if drain and not count:
                break
            wait_s, back_off.failures = 0.0 if count else _LOOK_EVERY_S, 0
        return self.moved

    def _replay(self, held: Sequence[Taken]) -> Sequence[Taken]:
        """Hand over the messages in flight until none is left."""
        for start in range(0, len(held), _AT_ONCE):
            self._handover.move(self._source, held[start : start + _AT_ONCE], self.moved)
        return ()

    def _revoke(self) -> None:
        """Pass revocations of producers on; those that fail are passed on later."""
        self._revocations = merged([*self._revocations, *self._source.revocations()])
        while self._revocations:
            self._handover.revoke(self._revocations[0])
            del self._revocations[0]

    def _step(self) -> int:
        taken = self._source.take(_AT_ONCE)
        if taken:
            self._handover.move(self._source, taken, self.moved)
        return len(taken)


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
    """Open Celery's broker as a source.

    Parameters:
      url: as in Celery's `broker_url`.
      queues: Celery's names; by default `celerys_queues`. In Redis all queues that kombu has bound are added; in
        RabbitMQ, which does not show its bindings, `app_queues`.
      app_queues: the queues that the producers' app names.
      take_unacked: Redis: take the unacknowledged messages of Celery's workers at once; only if no such worker runs.
      visibility_timeout_s: Redis: take such a message after this time, as Celery's own workers do.
      key_prefix: Redis: `global_keyprefix` of the senders.
      separator: Redis: `sep` of the senders.

    Raises:
      InvalidArguments: the bridge cannot read from such a broker.
      SettingsError: its client is not installed.
    """
    url = client_url(url, "--from")
    if url.startswith("amqp"):
        try:
            check_package("pika", "--from amqp://", "rabbitmq")
        except ValueError as error:
            raise SettingsError(str(error)) from None
        from dream.bridge.rabbitmq_source import RabbitmqSource

        return RabbitmqSource(settings, url, queues or sorted({*celerys_queues(), *app_queues}))
    return RedisSource(settings, url, queues, take_unacked, visibility_timeout_s, key_prefix, separator)

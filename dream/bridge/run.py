"""The bridge at work: takes, hands over, and begins anew where a server was away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dramatiq.errors import BrokerError
from pika.exceptions import AMQPError
from redis.exceptions import RedisError

from dream.bridge.handover import Moved
from dream.bridge.revocations import Revocation, merged
from dream.errors import DreamError
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.bridge.handover import Handover
    from dream.bridge.protocol import Taken
    from dream.bridge.sources import Source

__all__ = ["Bridge"]

log = get_logger(__name__)

#: Messages in one step: enough to be quick, few enough to be replayed at once.
_AT_ONCE = 200
_LOOK_EVERY_S = 0.2
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
#: What a server says that is away for a while.
_OUTAGES = (AMQPError, BrokerError, DreamError, OSError, RedisError)


class Bridge:
    """One bridge; several at a time do no harm.

    Parameters:
      source: where Celery's messages are.
      handover: what becomes of them.
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
    ) -> Moved:
        """Move until told to stop.

        Parameters:
          stopped: waits so many seconds for the word to stop, and says whether it came, once; what is in hand is
            finished then.
          drain: end when nothing waits any more.
          report: told from time to time what was moved so far.

        Raises:
          AMQPError, RedisError, OSError: the source could not be reached at the beginning. Later it is waited for.
        """
        held: Sequence[Taken] | None = self._source.begin()
        pause_s, next_report = _FIRST_PAUSE_S, time.monotonic() + report_every_s
        wait_s = 0.0
        while not stopped(wait_s):
            try:
                held = self._replay(self._source.begin() if held is None else held)
                self._revoke()
                count = self._step()
                if time.monotonic() >= next_report:
                    report(self.moved)
                    next_report = time.monotonic() + report_every_s
            except _OUTAGES as error:
                if isinstance(error, DreamError) and error.permanent:
                    raise
                log.warning("bridge_waits", error=f"{type(error).__name__}: {error}", again_in_s=pause_s)
                wait_s, pause_s, held = pause_s, min(pause_s * 2, _LONGEST_PAUSE_S), None
                continue
            if drain and not count:
                break
            wait_s, pause_s = 0.0 if count else _LOOK_EVERY_S, _FIRST_PAUSE_S
        return self.moved

    def _replay(self, held: Sequence[Taken]) -> Sequence[Taken]:
        """Hand over what was in flight; nothing of it is left."""
        for start in range(0, len(held), _AT_ONCE):
            self._handover.move(self._source, held[start : start + _AT_ONCE], self.moved)
        return ()

    def _revoke(self) -> None:
        """Pass on what producers have revoked; what could not be passed on is, later."""
        self._revocations = merged([*self._revocations, *self._source.revocations()])
        while self._revocations:
            self._handover.revoke(self._revocations[0])
            del self._revocations[0]

    def _step(self) -> int:
        taken = self._source.take(_AT_ONCE)
        if taken:
            self._handover.move(self._source, taken, self.moved)
        return len(taken)

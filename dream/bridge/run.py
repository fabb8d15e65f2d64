"""The bridge at work: takes, hands over, and begins anew where a server was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dramatiq.errors import BrokerError
from pika.exceptions import AMQPError
from redis.exceptions import RedisError

from dream.bridge.handover import Moved
from dream.errors import DreamError
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.bridge.handover import Handover
    from dream.bridge.sources import Source

__all__ = ["Bridge", "Moved"]

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
        self.moved = Moved()

    def run(
        self,
        stopping: threading.Event,
        *,
        drain: bool,
        report: Callable[[Moved], None] = lambda _: None,
        report_every_s: float = 2.0,
    ) -> Moved:
        """Move until told to stop.

        Parameters:
          stopping: what is in hand is finished, then it ends.
          drain: end when nothing waits any more.
          report: told from time to time what was moved so far.
        """
        pause_s, next_report = _FIRST_PAUSE_S, time.monotonic() + report_every_s
        is_connected = False
        while not stopping.is_set():
            try:
                if not is_connected:
                    self._replay()
                    is_connected = True
                count = self._step()
            except _OUTAGES as error:
                if isinstance(error, DreamError) and error.permanent:
                    raise
                log.warning("bridge_waits", error=f"{type(error).__name__}: {error}", again_in_s=pause_s)
                stopping.wait(pause_s)
                pause_s, is_connected = min(pause_s * 2, _LONGEST_PAUSE_S), False
                continue
            pause_s = _FIRST_PAUSE_S
            if time.monotonic() >= next_report:
                report(self.moved)
                next_report = time.monotonic() + report_every_s
            if not count:
                if drain:
                    break
                stopping.wait(_LOOK_EVERY_S)
        return self.moved

    def _replay(self) -> None:
        """Connect, and hand over what was in flight."""
        held = self._source.begin()
        for start in range(0, len(held), _AT_ONCE):
            self.moved.add(self._handover.move(self._source, held[start : start + _AT_ONCE]))

    def _step(self) -> int:
        taken = self._source.take(_AT_ONCE)
        if taken:
            self.moved.add(self._handover.move(self._source, taken))
        return len(taken)

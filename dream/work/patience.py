"""Patience: retry a call to a server that is away until it answers or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from dream.errors import BrokerUnavailable, ResultsUnavailable
from dream.log import get_logger
from dream.work.back_off import BackOff

__all__ = ["for_a_minute", "patiently"]

log = get_logger(__name__)

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    away: tuple[type[Exception], ...],
    *,
    told: Callable[[Any, float], object],
    unless: Callable[[Exception], bool] = lambda _error: False,
    patience_s: float = 60.0,
    first_pause_s: float = 0.1,
    longest_pause_s: float = 5.0,
) -> T:
    """The result of `call`, which must be safe to repeat: a call may succeed although its answer is lost.

    Parameters:
      away: errors of a server that is away.
      unless: whether one of these errors is raised at once all the same.
      told: called with each such error and the seconds until the next call.
      patience_s: seconds for which calls are repeated.
      first_pause_s, longest_pause_s: between two calls; each pause is twice as long as the one before.

    Raises:
      Exception: one of `away` after that time, or at once if `unless` says so; any other error of `call` at once.
    """
    give_up, back_off = time.monotonic() + patience_s, BackOff(first_s=first_pause_s, max_s=longest_pause_s)
    while True:
        try:
            return call()
        except away as error:
            if time.monotonic() > give_up or unless(error):
                raise
            pause_s = back_off.next_pause_s()
            told(error, pause_s)
        time.sleep(pause_s)


def for_a_minute(call: Callable[[], T]) -> T:
    """The result of a run's `call` to its broker or to Redis; after a minute the run's message is requeued.

    Raises:
      BrokerUnavailable, ResultsUnavailable: the server was away for a minute.
      Exception: any other error of `call`, at once.
    """

    def tell(error: Exception, again_in_s: float) -> None:
        log.warning("server_away", error=str(error), again_in_s=again_in_s)

    return patiently(call, (BrokerUnavailable, ResultsUnavailable), told=tell)

"""Waiting for a server that is away: a call is made again until it is there, or whoever calls has no more patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["patiently"]

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
    """What `call` returns. It must bear being made twice: what was done may be what is not answered.

    Parameters:
      away: the errors that say that a server is away.
      unless: whether one of these errors is raised at once all the same.
      told: called with each such error and the seconds until the next call.
      patience_s: how long to go on calling.
      first_pause_s, longest_pause_s: between two calls; each pause is twice as long as the one before.

    Raises:
      Exception: one of `away` after that time, or at once where `unless` says so; whatever else `call` raises, at once.
    """
    give_up, pause_s = time.monotonic() + patience_s, first_pause_s
    while True:
        try:
            return call()
        except away as error:
            if time.monotonic() > give_up or unless(error):
                raise
            told(error, pause_s)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, longest_pause_s)

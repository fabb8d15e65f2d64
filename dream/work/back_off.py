"""Pauses that double with each failure."""

from __future__ import annotations

__all__ = ["BackOff"]


class BackOff:
    """Pauses after failures; the first one again after a steady time of work.

    Parameters:
      first_s: pause after the first failure.
      max_s: longest pause.
      steady_s: after work of at least this long the count of failures begins anew.
    """

    def __init__(self, *, first_s: float = 0.2, max_s: float = 5.0, steady_s: float = 10.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._steady_s = steady_s
        self.failures = 0

    def next_pause_s(self, worked_s: float = 0.0) -> float:
        """Count a failure after `worked_s` of work; the pause before the next try."""
        if worked_s >= self._steady_s:
            self.failures = 0
        self.failures += 1
        # The exponent is bounded: 2**1024 is no float.
        return min(self._max_s, self._first_s * 2.0 ** min(self.failures - 1, 30))

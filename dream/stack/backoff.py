"""How long to wait before something that died is started again."""

from __future__ import annotations

__all__ = ["BackOff"]


class BackOff:
    """Delays that double from death to death, and begin anew after a steady life.

    Parameters:
      first_s: delay after the first death.
      max_s: longest delay.
      steady_s: a life of at least this long forgets the deaths before it.
    """

    def __init__(self, *, first_s: float = 0.2, max_s: float = 5.0, steady_s: float = 10.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._steady_s = steady_s
        self.deaths = 0

    def next_delay_s(self, lived_s: float) -> float:
        """Count a death after a life of `lived_s`; the delay before the next life."""
        if lived_s >= self._steady_s:
            self.deaths = 0
        self.deaths += 1
        # The exponent is bounded: 2**1024 is no float.
        return min(self._max_s, self._first_s * 2.0 ** min(self.deaths - 1, 30))

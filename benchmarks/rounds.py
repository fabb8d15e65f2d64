"""Times that can be compared: contenders take turns on one core, and medians are set against each other."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["medians_ms", "pin"]


def pin() -> int:
    """Keep this process to one core, the last it may use; returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def medians_ms(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each, in milliseconds, over so many rounds; each has one round before that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if round_number:
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}

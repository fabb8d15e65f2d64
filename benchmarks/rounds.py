"""Times that can be compared: contenders take turns on one core, and medians are set against each other.

What is measured is the processor time of the process with all its threads: on one core that is the time taken, less
what other processes took of the core meanwhile.
"""

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
    """The median processor time of each, in milliseconds, over so many rounds after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            began = time.process_time()
            run()
            if round_number:
                times[name].append((time.process_time() - began) * 1e3)
    return {name: statistics.median(taken) for name, taken in times.items()}

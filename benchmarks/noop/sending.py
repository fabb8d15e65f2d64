"""Send one task n times and print the seconds: `python -m benchmarks.noop.<app> <task> <n>`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

__all__ = ["send"]


def send(tasks: Mapping[str, Callable[[], object]]) -> None:
    """Run the command line."""
    task, count = tasks[sys.argv[1]], int(sys.argv[2])
    task()  # the first one connects
    begun = time.monotonic()
    for _ in range(count - 1):
        task()
    print(time.monotonic() - begun)

"""Comparable times: contenders take turns on one core, and their medians are compared.

Each contender has a process of its own, like the children of the pool, because the memory of one would make the next
one faster or slower. The times are processor time of all threads and of the kernel. On one core this is the time
taken, less the time of other processes on this core.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

__all__ = ["medians_ms", "pin"]

#: Rounds that do not count: after them, memory and caches stay the same.
_WARM_UP_ROUNDS = 2


def pin() -> int:
    """Pin this process, and the processes that it starts, to its last core; return the core's number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def medians_ms(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median processor time of each contender, in milliseconds, over this many rounds.

    Parameters:
      contenders: functions that can be sent to another process.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_process(run)) for name, run in contenders.items()}
        for round_number in range(_WARM_UP_ROUNDS + rounds):
            for name, process in processes.items():
                process.send(True)
                taken_ms = process.recv()
                if round_number >= _WARM_UP_ROUNDS:
                    times[name].append(taken_ms)
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextmanager
def _process(run: Callable[[], object]) -> Iterator[Connection]:
    """A process that runs the contender once for each message, and answers with the milliseconds."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_take_turns, args=(run, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
        ours.send(False)
    finally:
        ours.close()
        process.join()


def _take_turns(run: Callable[[], object], connection: Connection) -> None:
    while connection.recv():
        began_s = time.process_time()
        run()
        connection.send((time.process_time() - began_s) * 1e3)

"""Times that can be compared: contenders take turns on one core, and medians are set against each other.

Each has a process of its own, as the children of the pool are: what one does with memory would make the next one faster
or slower. What is measured is processor time, with that of all threads and of the kernel: on one core that is the time
taken, less what other processes took of the core meanwhile.
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

#: Runs that do not count: memory and caches are as they will be from then on.
_WARM_UP_ROUNDS = 2


def pin() -> int:
    """Keep this process, and those it starts, to one core, the last it may use; returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def medians_ms(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median processor time of each, in milliseconds, over so many rounds.

    Parameters:
      contenders: what can be sent to another process.
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
    """A process that runs it once for each message, and answers with the milliseconds."""
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

"""The cost of one span, with traces off and on.

    python -m benchmarks.tracing

It needs the extra `otel` and the tests: a collector in this process gets the spans.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.collector import collecting

_SPAN = """
from timeit import timeit
from dream.observe import tracing
from dream.settings import load

tracing.set_up(load())

def step():
    with tracing.span("step", image_id=1):
        pass

count = 200  # all of them fit into the queue of spans that wait to be sent
empty_s = min(timeit(lambda: None, number=count) for _ in range(9))
print(round((min(timeit(step, number=count) for _ in range(9)) - empty_s) / count * 1e9))
"""


def main() -> None:
    with collecting() as collector:
        ways = {"off": {}, "on": {**collector.environment, "OTEL_BSP_SCHEDULE_DELAY": "5000"}}
        for way, variables in ways.items():
            environment = {**os.environ, **variables}
            told = subprocess.run([sys.executable, "-c", _SPAN], env=environment, stdout=subprocess.PIPE, check=True)
            print(f"one span, {way}: {int(told.stdout):,} ns")


if __name__ == "__main__":
    main()

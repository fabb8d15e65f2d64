"""The time limit holds in a real worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dream.settings import Settings

#: A worker with one more actor, whose Python code would never end.
SPINNING = """
import os, signal, time
import dramatiq
from dramatiq.middleware import TimeLimitExceeded
from dream.actors import broker, run

@dramatiq.actor(broker=broker, queue_name="default", max_retries=0)
def spin():
    began = time.monotonic()
    try:
        while True:
            time.sleep(0.01)
    except TimeLimitExceeded:
        print("stopped", time.monotonic() - began, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

spin.send()
raise SystemExit(run())
"""


@pytest.mark.slow
def test_code_that_does_not_end_is_stopped_at_the_limit(environment: dict[str, str], settings: Settings) -> None:
    """`dream worker` starts the clock that Dramatiq's own command would have started."""
    variables = {**os.environ, **environment, "DREAM_TIME_LIMIT_S": "1"}
    done = subprocess.run([sys.executable, "-c", SPINNING], env=variables, capture_output=True, text=True, timeout=60)
    word, seconds = done.stdout.split()
    assert word == "stopped", done.stderr
    assert 1 <= float(seconds) < 5
    assert done.returncode == 0

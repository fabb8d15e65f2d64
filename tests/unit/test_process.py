"""The edges of a process: a signal to stop is always heard, and readiness is said once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dream.settings import Settings
from dream.work.process import say_ready

#: Signals at moments of no plan, many of them right when the wait begins.
HAMMERED = """
import os, random, signal, threading, time
from dream.work.process import StopSignal
for _ in range(300):
    stop = StopSignal()
    delay_s = random.random() / 2000
    thread = threading.Thread(target=lambda: (time.sleep(delay_s), os.kill(os.getpid(), signal.SIGTERM)))
    thread.start()
    assert stop.wait(5)
    thread.join()
    stop.close()
print("heard")
"""


def test_a_signal_to_stop_is_heard_whenever_it_comes() -> None:
    """300 signals around the moment in which the wait begins; an Event set by a handler hangs in some of them."""
    done = subprocess.run([sys.executable, "-c", HAMMERED], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "heard", done.stderr


def test_a_wait_without_a_signal_ends_at_its_time() -> None:
    code = "from dream.work.process import StopSignal; print(StopSignal().wait(0.05))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_readiness_is_a_file(tmp_path: Path) -> None:
    say_ready(Settings(), doing="works")
    say_ready(Settings(ready_file=str(tmp_path / "ready")), doing="works")
    assert (tmp_path / "ready").exists()

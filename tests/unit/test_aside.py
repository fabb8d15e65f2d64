"""Calls that may hang, in threads that are kept."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from dream.work import aside

_FORKED = """
import os
from dream.work import aside
aside.run(os.getpid).result(10)
child = os.fork()
if not child:
    os._exit(0 if aside.run(os.getpid).result(10) == os.getpid() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_thread_that_is_done_has_the_next_call() -> None:
    """A caller that waits for one call after the other needs one thread."""
    ran_in = {aside.run(threading.get_ident).result(10) for _ in range(20)}
    assert len(ran_in) == 1
    assert threading.get_ident() not in ran_in


def test_a_call_does_not_wait_for_another() -> None:
    """Calls that need each other end, so each has a thread."""
    both = threading.Barrier(2)
    calls = [aside.run(lambda: both.wait(10)) for _ in range(2)]
    assert sorted(call.result(10) for call in calls) == [0, 1]


def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        aside.run(lambda: 1 / 0).result(10)
    assert aside.run(lambda: "again").result(10) == "again"


def test_a_forked_process_has_threads_of_its_own() -> None:
    """Of its parent's threads a forked process has none: a call that was given to one would never be run."""
    forked = subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKED], timeout=60)
    assert forked.returncode == 0

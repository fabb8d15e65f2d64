"""`keep_running`, seen from outside: what stays up, what ends, and with which exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dream.work.process import SAME_SIGNAL_S
from tests.conftest import wait_for

START = """
import os, signal, sys, time
from dream.work.respawn import keep_running

def say(word):
    os.write(1, f"{word} {os.getpid()}\\n".encode())

def wait():
    while True:  # in pieces: Python may enter a long sleep with a signal just noted
        time.sleep(0.02)

def lasting():
    def leave(number, _frame):
        say(f"got {signal.Signals(number).name}")
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    say("up")
    wait()

def stubborn():
    signal.signal(signal.SIGTERM, lambda *_: say("no"))
    say("up")
    while True:
        wait()

def wrong():
    say("up")
    return 2

def failing():
    say("up")
    raise RuntimeError("broken")

def refusing():
    say("up")
    sys.exit("not like this")

def leaving_badly():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    say("up")
    wait()

sys.exit(keep_running(globals()[sys.argv[1]], stop_timeout_s=float(sys.argv[2])))
"""


class Kept:
    """A process that runs `keep_running`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def says(self, word: str) -> int:
        """Wait for a line from the child; its process id."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(f"{word} "), line
        return int(line.split()[-1])

    def errors_until(self, text: str) -> list[str]:
        """The lines on its standard error up to one that holds the text."""
        assert self.process.stderr is not None
        lines = [self.process.stderr.readline()]
        while text not in lines[-1]:
            assert lines[-1], "it ended without saying so"
            lines.append(self.process.stderr.readline())
        return lines

    def ends(self) -> int:
        return self.process.wait(20)


@contextmanager
def keeping(target: str, *, stop_timeout_s: float = 10) -> Iterator[Kept]:
    argv = [sys.executable, "-c", START, target, str(stop_timeout_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Kept(process)
        finally:
            process.kill()


def test_a_child_that_is_killed_is_started_again() -> None:
    with keeping("lasting") as kept:
        first = kept.says("up")
        os.kill(first, signal.SIGKILL)
        assert kept.says("up") != first


def test_a_child_that_fails_says_why_and_is_started_again() -> None:
    with keeping("failing") as kept:
        assert kept.says("up") != kept.says("up")
        assert "RuntimeError: broken\n" in kept.errors_until("starting again")


def test_a_child_that_exits_with_a_text_prints_it() -> None:
    with keeping("refusing") as kept:
        kept.says("up")
        assert "not like this\n" in kept.errors_until("starting again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_a_clean_stop_is_0(number, is_running) -> None:
    with keeping("lasting") as kept:
        child = kept.says("up")
        kept.process.send_signal(number)
        assert kept.says(f"got {number.name}") == child
        assert kept.ends() == 0
        assert not is_running(child)


def test_a_terminal_that_closes_asks_for_the_same_clean_stop() -> None:
    with keeping("lasting") as kept:
        kept.says("up")
        kept.process.send_signal(signal.SIGHUP)
        kept.says("got SIGTERM")
        assert kept.ends() == 0


def test_a_wrong_setting_is_final() -> None:
    with keeping("wrong") as kept:
        kept.says("up")
        assert kept.ends() == 2


def test_a_child_that_does_not_leave_is_killed_after_its_time(is_running) -> None:
    with keeping("stubborn", stop_timeout_s=0.5) as kept:
        child = kept.says("up")
        begun = time.monotonic()
        kept.process.terminate()
        kept.says("no")
        assert kept.ends() == 137
        assert 0.5 <= time.monotonic() - begun < 5
        assert not is_running(child)


def test_a_second_signal_kills_but_an_echo_of_the_first_does_not(is_running) -> None:
    with keeping("stubborn", stop_timeout_s=60) as kept:
        child = kept.says("up")
        kept.process.terminate()
        kept.says("no")
        kept.process.terminate()  # at once: `timeout` signals a process and then its group
        echo_until = time.monotonic() + SAME_SIGNAL_S
        wait_for(lambda: not is_running(child) or time.monotonic() > echo_until)
        assert is_running(child)
        kept.process.terminate()
        assert kept.ends() == 137


def test_a_child_that_ends_its_stop_with_an_error_passes_its_code_on() -> None:
    with keeping("leaving_badly") as kept:
        kept.says("up")
        kept.process.terminate()
        assert kept.ends() == 5


def test_the_child_dies_with_a_parent_that_is_killed(wait_until, is_running) -> None:
    with keeping("lasting") as kept:
        child = kept.says("up")
        kept.process.kill()
        wait_until(lambda: not is_running(child))


def test_a_stop_during_the_pause_before_a_new_start_is_clean() -> None:
    with keeping("failing") as kept:
        kept.errors_until("starting again in 0.8 s")
        kept.process.terminate()
        assert kept.ends() == 0

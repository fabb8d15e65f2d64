"""Fault points strike where they are told to, as often as they are told to, and cost nothing otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from dream import fault_points
from dream.fault_points import parse, step

_PROGRAM = """
from dream.fault_points import step
from dream.settings import load

@step("put")
def put():
    print("put", flush=True)

load()
put()
print("alive", flush=True)
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    fault_points.arm(None)


def run(fault: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DREAM_FAULT": fault}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(("point", "printed"), [("put:before", ""), ("put:after", "put\n")])
def test_the_process_that_comes_there_is_killed(point: str, printed: str) -> None:
    ended = run(f"{point}=kill")
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, printed)


def test_all_processes_together_are_killed_as_often_as_asked(tmp_path: Path) -> None:
    codes = [run(f"put:after=kill*2@{tmp_path}/count").returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert len((tmp_path / "count").read_text().splitlines()) == 2


def test_a_fault_elsewhere_does_nothing() -> None:
    assert run("take:after=kill").stdout == "put\nalive\n"


@pytest.mark.parametrize("wrong", ["put", "put:after", "put:after=explode", "put:between=kill", "put:after=kill*1"])
def test_a_wrong_fault_is_one_line_that_says_what_it_may_be(wrong: str) -> None:
    ended = run(wrong)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        f"dream.errors.SettingsError: DREAM_FAULT={wrong!r} is wrong: it must"
    )


def test_a_stop_stands_still_until_somebody_says_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "DREAM_FAULT": f"put:before=stop*1@{tmp_path}/count"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read() == "put\nalive\n"


def test_an_unarmed_step_costs_under_a_microsecond() -> None:
    def bare() -> None:
        return None

    stepped = step("put")(bare)

    def seconds(function: object, calls: int = 20_000) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            function()  # type: ignore[operator]
        return (time.perf_counter() - started) / calls

    assert median(seconds(stepped) - seconds(bare) for _ in range(9)) < 1e-6


def test_the_parts_of_a_fault_are_read() -> None:
    fault = parse("put:after=stop*3@/there/count")
    assert (fault.point, fault.action, fault.times, fault.counter) == ("put:after", "stop", 3, Path("/there/count"))

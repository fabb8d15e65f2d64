"""Programs that tests fork end, speak and stand where those that are started do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import Preloaded, can_be_forked

PROGRAM = """
import atexit, os, sys, beside
atexit.register(lambda: print("at the end"))
print(__name__, sys.argv[1:], os.getcwd(), os.environ["SAID"], sys.stdin.read(), beside.__name__)
print("in errors", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(3)", "raise SystemExit('why')", "1 / 0", "import signal; os.kill(os.getpid(), 9)"]
)
def test_a_forked_program_is_as_one_that_is_started(tmp_path: Path, end: str) -> None:
    """The same output, folder, variables, modules and exit code; a traceback alone has other first lines."""
    (tmp_path / "beside.py").touch()
    (tmp_path / "program.py").write_text(PROGRAM + end)
    (tmp_path / "folder").mkdir()
    argv, variables = [str(tmp_path / "program.py"), "a", "b"], {**os.environ, "SAID": "heard"}
    run = subprocess.run(
        [sys.executable, *argv],
        cwd=tmp_path / "folder", env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    forked = Preloaded(argv, variables, tmp_path / "out", tmp_path / "err", cwd=tmp_path / "folder")

    assert forked.wait(30) == run.returncode
    assert (tmp_path / "out").read_text() == run.stdout
    assert (tmp_path / "err").read_text().splitlines()[::-1][:2] == run.stderr.splitlines()[::-1][:2]


def test_what_python_reads_at_its_start_needs_a_start() -> None:
    variables = dict(os.environ)
    assert can_be_forked(["-m", "dream", "worker"], {**variables, "DREAM_PORT": "1", "PYTHONPATH": "/srv"})
    assert not can_be_forked(["-m", "dream", "worker"], {**variables, "PYTHONPROFILEIMPORTTIME": "1"})
    assert not can_be_forked(["-m", "dream", "worker"], {**variables, "LD_PRELOAD": "clock.so"})
    assert not can_be_forked(["-S", "-m", "dream"], variables)
    assert not can_be_forked(["-m", "dramatiq", "dream.actors"], variables)

"""The `dream` command as tests run it: a process of its own, with nothing but a test's variables.

`dream` forks it (`tests/preloaded.py`), unless the test is about its start; `command` is for an interpreter of its own.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import wait_for
from tests.preloaded import Preloaded, can_be_forked

__all__ = ["command", "dream", "on_a_terminal", "only_line"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dream", *map(str, arguments)]


def dream(
    environment: Mapping[str, str], *arguments: object, timeout_s: float = 60, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal.

    Parameters:
      changes: more environment variables.
    """
    argv, variables = command(*arguments), {**os.environ, **environment, **changes}
    if can_be_forked(argv[1:], variables):
        return _forked(argv, variables, timeout_s)
    return subprocess.run(
        argv, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )


def _forked(argv: list[str], environment: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        process = Preloaded(argv[1:], environment, stdout, stderr)
        try:
            code = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(argv, code, stdout.read_text(), stderr.read_text())


def on_a_terminal(
    environment: Mapping[str, str],
    typed: str,
    *arguments: object,
    columns: int = 60,
    after: str = "",
    asks: bool = True,
) -> tuple[int, str]:
    """Run a command on a terminal of its own, type something, and read all that appears; returns the exit code first.

    Parameters:
      after: type only once this has appeared, and the command waits for an answer. Python loses a Ctrl-C that arrives
        just before `input` begins to read.
      asks: the command waits for an answer; else it only shows something.
    """
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    terminal = Path(os.ttyname(theirs))
    process = Preloaded(command(*arguments)[1:], {**os.environ, **environment, **size}, terminal)
    try:
        wait_for(
            lambda: process.poll() is not None or _holds(process.pid, terminal), what="the command on the terminal"
        )
        os.close(theirs)
        shown = ""
        while after not in shown:
            shown += os.read(ours, 65536).decode()
        if after and asks:
            wait_for(lambda: _reads_its_input(process.pid), what="the command's wait for an answer")
        os.write(ours, typed.encode())
        shown += _read_to_end(ours)
        return process.wait(20), shown
    finally:
        process.kill()
        os.close(ours)


def _holds(pid: int, terminal: Path) -> bool:
    """Whether all that a process says goes to the terminal."""
    return Path(f"/proc/{pid}/fd/2").readlink() == terminal


def _reads_its_input(pid: int) -> bool:
    """Whether a process is in a system call on its standard input."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()  # its number, then its arguments
    return call[1:2] == ["0x0"]


def _read_to_end(terminal: int) -> str:
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # a terminal that nobody holds any more
            return shown.decode()
        if not chunk:
            return shown.decode()
        shown += chunk


def only_line(text: str) -> str:
    """The text's one line."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]

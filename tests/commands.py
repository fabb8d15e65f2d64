"""The `dream` command as tests run it: a process of its own, with nothing but a test's variables."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping

__all__ = ["command", "dream", "on_a_terminal", "only_line"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dream", *map(str, arguments)]


def dream(
    environment: Mapping[str, str], *arguments: object, timeout_s: float = 60, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with pipes for a terminal.

    Parameters:
      changes: more environment variables.
    """
    return subprocess.run(
        command(*arguments),
        env={**os.environ, **environment, **changes},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def on_a_terminal(
    environment: Mapping[str, str], typed: str, *arguments: object, columns: int = 60, after: str = ""
) -> tuple[int, str]:
    """Run a command on a terminal of its own, type something, and read all that appears; returns the exit code first.

    Parameters:
      after: type only once this has appeared.
    """
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    with subprocess.Popen(
        command(*arguments),
        env={**os.environ, **environment, **size},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    ) as process:
        os.close(theirs)
        try:
            shown = ""
            while after not in shown:
                shown += os.read(ours, 65536).decode()
            os.write(ours, typed.encode())
            shown += _read_to_end(ours)
            return process.wait(20), shown
        finally:
            process.kill()
            os.close(ours)


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

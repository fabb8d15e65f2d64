"""What every process of ours does at its edges: say that it takes work, wait for the signal to end, and turn an error
into one line and an exit code. Light to import: it stands at the start of every command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dream.errors import DreamError, SettingsError

if TYPE_CHECKING:
    from types import FrameType

    from dream.settings import Settings

__all__ = [
    "EXIT_FAILURE",
    "EXIT_INTERRUPTED",
    "EXIT_SETTINGS",
    "StopSignal",
    "exit_code",
    "node_name",
    "say_ready",
    "show_life",
]

EXIT_FAILURE = 1
#: A setting is wrong: trying again cannot help.
EXIT_SETTINGS = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


class StopSignal:
    """SIGTERM or SIGINT, waited for from the main thread.

    A handler that sets a `threading.Event` can hang for ever: the signal may come while the main thread holds the
    event's lock in `wait`. A byte in a socket has no lock.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the signal; says whether it came within `timeout_s` (None: for as long as it takes)."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            came, _, _ = select.select([self._reader], [], [], left_s)
            if not came:
                return False
            # Every signal that Python handles writes its number; only these two mean the end.
            if {signal.SIGTERM, signal.SIGINT} & set(self._reader.recv(64)):
                return True

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The byte in the socket says it all."""


def node_name(pattern: str) -> str:
    """What a worker calls itself: the pattern with this host's name and this process's id in it."""
    host = socket.gethostname()
    first, _, rest = host.partition(".")
    for mark, value in {"%h": host, "%n": first, "%d": rest, "%p": str(os.getpid())}.items():
        pattern = pattern.replace(mark, value)
    return pattern


def say_ready(settings: Settings, text: str = "") -> None:
    """Create the file that `DREAM_READY_FILE` names: from now on this process takes work."""
    if settings.ready_file:
        # Whoever waits for the file finds it whole.
        written = Path(f"{settings.ready_file}.{os.getpid()}")
        written.write_text(text, "utf-8")
        written.replace(settings.ready_file)


def show_life(settings: Settings) -> None:
    """Touch that file, now and then: who watches it knows that this process still does its rounds."""
    if settings.ready_file:
        with contextlib.suppress(OSError):  # not there before it takes work, nor where somebody has removed it
            os.utime(settings.ready_file)


def exit_code(call: Callable[[], int]) -> int:
    """What `call` returns, or 2 for a wrong setting and 1 for any other error of ours, told on standard error."""
    try:
        return call()
    except DreamError as error:
        sys.stderr.write(f"dream: {error}\n")
        return EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILURE

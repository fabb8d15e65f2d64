"""The edges of every process: the signal to stop, the ready file, the exit code, and errors as one line.

Light to import, because every command starts with it.
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
from dream.work.notify import notify, pings, status

if TYPE_CHECKING:
    from types import FrameType

    from dream.work.notify import Pulse
    from dream.work.settings import Settings

__all__ = [
    "EXIT_FAILURE",
    "EXIT_INTERRUPTED",
    "EXIT_SETTINGS",
    "SAME_SIGNAL_S",
    "StopSignal",
    "describe_exit",
    "exit_code",
    "node_name",
    "say_ready",
    "say_stopping",
    "show_life",
]

EXIT_FAILURE = 1
#: The exit code for a wrong setting: a restart cannot help.
EXIT_SETTINGS = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
#: Seconds within which two signals count as one: `timeout`, for example, signals a process and then its group.
SAME_SIGNAL_S = 0.5


class StopSignal:
    """SIGTERM or SIGINT, for which the main thread waits.

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
        """Wait for the signal; return whether it came within `timeout_s` (None: no limit)."""
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
        """Stop listening to signals."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: Python has written the signal's number to the socket."""


def node_name(pattern: str) -> str:
    """The name of a worker: the pattern with this host's name and this process's id in it."""
    host = socket.gethostname()
    first, _, rest = host.partition(".")
    for mark, value in {"%h": host, "%n": first, "%d": rest, "%p": str(os.getpid())}.items():
        pattern = pattern.replace(mark, value)
    return pattern


def say_ready(settings: Settings, text: str = "", *, doing: str) -> None:
    """Tell the service manager, and create the file that `DREAM_READY_FILE` names: this process takes work now.

    Parameters:
      text: the file's contents.
      doing: the status for the service manager.
    """
    notify("READY=1")
    status(doing)
    if settings.ready_file:
        # Renamed, so that a waiting process never finds half a file.
        written = Path(f"{settings.ready_file}.{os.getpid()}")
        written.write_text(text, "utf-8")
        written.replace(settings.ready_file)


def show_life(settings: Settings, pulse: Pulse | None = None, *, doing: str = "") -> None:
    """Ping the watchdog and touch the ready file, unless a loop of `pulse` is stuck. The main loop calls it.

    Parameters:
      doing: the status for the service manager; without one, the last status stays.
    """
    if pulse is not None and (stuck := pulse.stuck()):
        status("stuck: " + ", ".join(f"{loop} for {late_s:.0f} s" for loop, late_s in sorted(stuck.items())))
        return
    if doing:
        status(doing)
    if pings():
        notify("WATCHDOG=1")
    if settings.ready_file:
        with contextlib.suppress(OSError):  # the file is not there yet, or was removed
            os.utime(settings.ready_file)


def say_stopping() -> None:
    """Tell the service manager that this service stops, because it was asked to."""
    notify("STOPPING=1")
    status("stopping")


def exit_code(call: Callable[[], int]) -> int:
    """Return the result of `call`; for an error of dream write it to standard error, and return 2 (a setting) or 1."""
    try:
        return call()
    except DreamError as error:
        sys.stderr.write(f"dream: {error}\n")
        return EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILURE


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"

"""Tie a process to its parent: when the parent ends in any way, the kernel kills the child.

A forked child calls `die_with()`. Another program is started through this file,
`python -I -S tether.py PARENT_PID PROGRAM ARGUMENT…`, which ties itself to the parent and then becomes the program.
No Python code runs between a fork and an exec, so this is safe in a parent that has threads.

The kernel ties the child to the *thread* that forked. Fork from a thread that lives as long as its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with", "tethered"]

_PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; if the parent has ended already, end now.

    On other systems than Linux it does nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent_pid:  # the parent ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def tethered(argv: list[str]) -> list[str]:
    """The command that runs `argv` tied to the calling process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _become(parent_pid: int, argv: list[str]) -> None:
    die_with(parent_pid)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 (the programs are our own)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])

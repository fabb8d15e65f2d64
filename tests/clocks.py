"""A clock of the day that a test may set, for processes that it starts (`clock.c`)."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import IN_CI

__all__ = ["Clock", "set_clock"]

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of the day of some processes; their monotonic clock stays true.

    The test is skipped where no C compiler is installed.

    Parameters:
      folder: for the library and the file.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("cc") is None:
            message = "there is no C compiler for tests/clock.c (Debian: gcc, libc6-dev)"
            if IN_CI:
                pytest.fail(message)
            pytest.skip(message)
        library = folder / "clock.so"
        #: Says by how many seconds the clock is wrong.
        self.file = folder / "clock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, _SOURCE], check=True)
        self.file.write_bytes(struct.pack("q", 0))
        #: The environment of processes that read this clock.
        self.variables = {"LD_PRELOAD": str(library), "DREAM_TEST_CLOCK": str(self.file)}

    def set(self, ahead_s: int) -> None:
        """From now on the clock is wrong by so much; negative: it is behind."""
        set_clock(self.file, ahead_s)


def set_clock(file: Path, ahead_s: int) -> None:
    """Set the clock of this file."""
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[:] = struct.pack("q", ahead_s)

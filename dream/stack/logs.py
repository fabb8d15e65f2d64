"""The log files of the parts: bounded at each start and while they grow, and shown on our standard error as they grow.

The parts write into their files themselves, and we read along: a part never waits for whoever watches us, and its
last words are on disk whichever of us died.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

__all__ = ["Follower", "last_line", "rotate", "rotate_open"]

_LIMIT_BYTES = 10 * 2**20
_CHUNK_BYTES = 64 * 2**10


def rotate(path: Path, *, limit_bytes: int = _LIMIT_BYTES) -> None:
    """Set a file that has grown past the limit aside as `<name>.1`, in place of the one before it."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(f"{path.name}.1"))


def rotate_open(path: Path, *, limit_bytes: int = _LIMIT_BYTES) -> None:
    """Rotate a file that a running part appends to: copy its content aside, then empty it.

    A line that is written between the two, within microseconds, is lost.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return
    except FileNotFoundError:
        return
    aside = path.with_name(f"{path.name}.1")
    try:
        shutil.copyfile(path, aside)
    except OSError:  # the disk is full: emptying the file is urgent
        aside.unlink(missing_ok=True)
    os.truncate(path, 0)


def last_line(path: Path) -> str:
    """The last line that is not blank, or an empty string."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _CHUNK_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


class Follower:
    """Copies whole lines that are new in some log files, from when each was added.

    Parameters:
      out: where they go.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._offsets: dict[Path, int] = {}

    def add(self, path: Path) -> None:
        """Follow a file; what it holds already is not shown."""
        if path not in self._offsets:
            self._offsets[path] = path.stat().st_size if path.exists() else 0

    def copy(self) -> None:
        """Copy what is new. If nobody reads it any more, stop following."""
        try:
            for path in list(self._offsets):
                self._copy_one(path)
            self._out.flush()
        except (BrokenPipeError, ValueError):
            self._offsets.clear()

    def _copy_one(self, path: Path) -> None:
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            return
        if size_bytes < self._offsets[path]:  # set aside and begun anew
            self._offsets[path] = 0
        if size_bytes == self._offsets[path]:
            return
        with path.open("rb") as file:
            file.seek(self._offsets[path])
            chunk = file.read(_CHUNK_BYTES)
        whole = chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == _CHUNK_BYTES else b"")
        self._out.write(whole)
        self._offsets[path] += len(whole)

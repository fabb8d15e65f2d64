"""The log files of a stack's processes: limit their size, and copy new lines to standard error.

The processes write their files themselves, and `dream up` reads along. So no process waits for a slow terminal, and the
last line of a dead process is on disk.
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
    """Rename a file that is larger than the limit to `<name>.1`, over the older one."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(f"{path.name}.1"))


def rotate_open(path: Path, *, limit_bytes: int = _LIMIT_BYTES) -> None:
    """Rotate a file to which a running process appends: copy it, then empty it.

    A line that is written within the microseconds between the two is lost.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return
    except FileNotFoundError:
        return
    aside = path.with_name(f"{path.name}.1")
    try:
        shutil.copyfile(path, aside)
    except OSError:  # the disk is full, so the file must be emptied
        aside.unlink(missing_ok=True)
    os.truncate(path, 0)


def last_line(path: Path) -> str:
    """The last line that is not blank; an empty string if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _CHUNK_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


class Follower:
    """Copies new whole lines of log files.

    Parameters:
      out: the stream that gets the lines.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._offsets: dict[Path, int] = {}

    def add(self, path: Path) -> None:
        """Follow a file from its present end."""
        if path not in self._offsets:
            self._offsets[path] = path.stat().st_size if path.exists() else 0

    def copy(self) -> None:
        """Copy the new lines. Stop following if the stream is closed."""
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
        if size_bytes < self._offsets[path]:  # rotated
            self._offsets[path] = 0
        if size_bytes == self._offsets[path]:
            return
        with path.open("rb") as file:
            file.seek(self._offsets[path])
            chunk = file.read(_CHUNK_BYTES)
        whole = chunk[: chunk.rfind(b"\n") + 1] or (chunk if len(chunk) == _CHUNK_BYTES else b"")
        self._out.write(whole)
        self._offsets[path] += len(whole)

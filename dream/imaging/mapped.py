"""Maps of memory: a file's bytes for readers that jump between places, and a test of how much memory is left."""

from __future__ import annotations

import mmap
from typing import IO

__all__ = ["Bytes", "check_room", "mapped"]

#: Bytes in memory or in a mapped file.
Bytes = bytes | mmap.mmap


def mapped(file: IO[bytes]) -> Bytes:
    """All bytes of a file that is not empty; a file on a disk is mapped, not read."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:  # it is in memory
        file.seek(0)
        return file.read()


def check_room(size_bytes: int) -> None:
    """Check that this process may take so much memory; nothing is written to it.

    Libraries in Rust end the process when memory is short.

    Raises:
      MemoryError: it may not.
    """
    try:
        mmap.mmap(-1, size_bytes).close()
    except OSError as error:
        raise MemoryError(f"{size_bytes} bytes") from error

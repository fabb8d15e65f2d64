"""The bytes of a file, for readers that jump between places."""

from __future__ import annotations

import mmap
from typing import IO

__all__ = ["Bytes", "mapped"]

#: Bytes in memory or in a mapped file.
Bytes = bytes | mmap.mmap


def mapped(file: IO[bytes]) -> Bytes:
    """All bytes of a file that is not empty; a file on a disk is mapped, not read."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:  # it is in memory
        file.seek(0)
        return file.read()

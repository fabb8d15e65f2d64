"""A file's bytes, for readers that jump about in it."""

from __future__ import annotations

import mmap
from typing import IO

__all__ = ["Bytes", "mapped"]

#: Bytes as they lie in memory or in a mapped file.
Bytes = bytes | mmap.mmap


def mapped(file: IO[bytes]) -> Bytes:
    """All bytes of a file that is not empty; a file on a disk is mapped, not read."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:  # it lies in memory
        file.seek(0)
        return file.read()

"""Files put together by hand, smaller than any encoder would make them, for others to spoil."""

from __future__ import annotations

import struct

from imaging_pictures import png

__all__ = ["grey_png", "tiff"]

_GREY_ROWS = (b"\0" + bytes(64)) * 64


def grey_png(*chunks: bytes) -> bytes:
    """A PNG of 64 × 64 grey pixels, with these chunks before its pixels."""
    return png(64, 64, 8, 0, _GREY_ROWS, *chunks)


def tiff(entries: list[tuple[int, int, int, int]], start: int = 8) -> bytes:
    """A TIFF that is nothing but one directory: tags with their types, counts and values."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<L", start) + directory + bytes(4)

"""How many scans a JPEG has, counted without decoding it (source: ITU-T T.81, annex B)."""

from __future__ import annotations

import re

__all__ = ["count_scans"]

# In the compressed data of a scan, FF is followed by 00 (a data byte), D0–D7 (a restart) or FF (filling). All else is
# the next marker.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END_OF_IMAGE = 0xD9
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, 0xD8})


def count_scans(data: bytes, at_most: int) -> int:
    """Scans of the first picture in `data`; counting stops at `at_most` + 1.

    Thumbnails in metadata, and whatever follows the end of the picture, do not count.
    """
    scans = 0
    position = 2
    while scans <= at_most:
        found = _NEXT_MARKER.search(data, position)
        if found is None or data[found.start() + 1] == _END_OF_IMAGE:
            break
        marker, position = data[found.start() + 1], found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _START_OF_SCAN:
            scans += 1
        position += int.from_bytes(data[position : position + 2], "big")
    return scans

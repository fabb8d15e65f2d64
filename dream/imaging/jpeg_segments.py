"""What a JPEG is made of: its markers in order, each with the segment that follows it.

```
SOI │ APPn │ COM │ DQT │ SOF │ DHT │ SOS compressed data │ SOS compressed data │ EOI │ anything
     └──────────────────── segments ────────────────────┘                       └ the last one
```

(Source: ITU-T T.81, annex B.)
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["END_OF_IMAGE", "FRAMES", "START_OF_SCAN", "WITHOUT_LENGTH", "Segment", "segments"]

END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
#: Frame headers of every kind.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers that nothing belongs to, of those that `segments` yields.
WITHOUT_LENGTH = frozenset({0x01, 0xD8, END_OF_IMAGE})

# In compressed data FF is followed by 00 (a data byte), D0–D7 (a restart) or FF (filling). All else is the next marker.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Segment(NamedTuple):
    """A marker and what belongs to it.

    Parameters:
      marker: its second byte; the first is FF.
      start: where the marker is.
      payload: where what belongs to it begins, behind marker and length.
      end: where that is over, as its length says; perhaps behind the end of the file.
    """

    marker: int
    start: int
    payload: int
    end: int


def segments(data: bytes | mmap.mmap) -> Iterator[Segment]:
    """All segments of the picture that `data` begins with, up to the end of the image or of the file.

    What lies between two of them is compressed data behind a scan, and filling or damage elsewhere.
    """
    end = 2
    while found := _NEXT_MARKER.search(data, end):
        start, length_at = found.span()
        marker = data[start + 1]
        if marker in WITHOUT_LENGTH:
            payload = end = length_at
        else:
            payload = length_at + 2
            end = length_at + int.from_bytes(data[length_at:payload], "big")
        yield Segment(marker, start, payload, end)
        if marker == END_OF_IMAGE:
            return

"""The markers of a JPEG in order, each with the segment that follows it.

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

__all__ = [
    "APP0",
    "APP1",
    "APP2",
    "END_OF_IMAGE",
    "FRAMES",
    "START_OF_SCAN",
    "WITHOUT_LENGTH",
    "Segment",
    "segment",
    "segments",
    "with_segments",
]

#: Application data: JFIF; Exif or XMP; profiles, ISO 21496-1 or the index of a multi-picture file.
APP0, APP1, APP2 = 0xE0, 0xE1, 0xE2

END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
#: Frame headers of every kind.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers without a payload, among those that `segments` yields.
WITHOUT_LENGTH = frozenset({0x01, 0xD8, END_OF_IMAGE})

# In compressed data FF is followed by 00 (a data byte), D0–D7 (a restart) or FF (filling). All else is the next marker.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Segment(NamedTuple):
    """A marker and its payload.

    Parameters:
      marker: its second byte; the first is FF.
      start: the place of the marker.
      payload: the place of the payload, behind marker and length.
      end: the end of the payload by its length; perhaps behind the end of the file.
    """

    marker: int
    start: int
    payload: int
    end: int


def segments(data: bytes | mmap.mmap) -> Iterator[Segment]:
    """All segments of the picture that `data` begins with, up to the end of the image or of the file.

    After a scan, the bytes before the next segment are compressed data; elsewhere they are filling or damage.
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


def segment(marker: int, payload: bytes) -> bytes:
    """A segment with its marker and length. The payload has at most 65,533 bytes."""
    return bytes((0xFF, marker)) + (2 + len(payload)).to_bytes(2, "big") + payload


def with_segments(data: bytes, added: bytes) -> bytes:
    """The JPEG with further segments, before all but its JFIF header."""
    first = next(segments(data))
    place = first.end if first.marker == APP0 else first.start
    return data[:place] + added + data[place:]

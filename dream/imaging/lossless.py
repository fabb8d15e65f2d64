"""Keep a good JPEG: leave its pixels as they are, bit for bit, and cut all private data out of its file.

```
SOI │ APP0 JFIF │ APP1 Exif, XMP │ APP2 ICC │ APP13 IPTC │ COM │ DQT SOF DHT SOS … │ EOI │ previews, films, anything
 ✓       ✓              ✗             ✗          ✗         ✗            ✓             ✓              ✗
```

A profile is cut out: it is sRGB's, which browsers assume anyway, and its tags may contain private data. Compressed data
may contain bytes behind its last pixel, which no decoder reads: such a picture is encoded anew.

(Source for segments: JFIF 1.02, Exif 2.32, ICC.1:2022 annex B.)
"""

from __future__ import annotations

import re
from math import prod
from typing import BinaryIO

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.imaging.colour import is_srgb
from dream.imaging.decode import orientation_of
from dream.imaging.jpeg_segments import END_OF_IMAGE, FRAMES, START_OF_SCAN, WITHOUT_LENGTH, segments
from dream.imaging.libtiff_reports import is_cut_short
from dream.imaging.limits import Limits

__all__ = ["cleaned"]

_APP0, _APP14 = 0xE0, 0xEE
_DHT, _DQT = 0xC4, 0xDB
#: Frames of Huffman-coded baseline, extended and progressive pictures: what every browser shows.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
#: Markers that do not belong between the segments of such a picture.
_STRANGE = (FRAMES - _SHOWN_FRAMES) | WITHOUT_LENGTH
#: Frames, scans and restart intervals: pixels are decoded with these, and with tables.
_DECODING = frozenset({*_SHOWN_FRAMES, START_OF_SCAN, 0xDD})
#: Application data that changes how pixels are shown, by its first bytes.
_SHOWING = {_APP0: b"JFIF\0", _APP14: b"Adobe"}
#: The bytes of these two segments; a thumbnail may follow the first, and anything the second.
_JFIF_BYTES = 14
_ADOBE_BYTES = 12

#: Runs of compressed data end at a restart, at the next segment, or at the end.
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
#: The most pixels to decode for a check of all runs of a picture; about 0.3 s.
_MOST_TRIED_PIXELS = 24_000_000


def cleaned(file: BinaryIO, image: ImageFile, limits: Limits) -> bytes | None:
    """The file without private data; None if the picture must be encoded anew.

    A picture may stay if it is an upright sRGB JPEG within the longest edge and the byte budget, and a JPEG is wanted.

    Parameters:
      file: the file of `image`, open for reading.
    """
    if not isinstance(image, JpegImageFile) or limits.output_format not in {"auto", "jpeg"}:
        return None
    if max(image.size) > limits.max_edge_px or orientation_of(image) != 1:
        return None
    if not is_srgb(image.mode, image.info.get("icc_profile")):
        return None
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    found = _without_private_segments(data)
    if found is None:
        return None
    kept, runs = found
    if len(kept) > limits.max_bytes or (len(runs) > 1 and len(runs) * prod(image.size) > _MOST_TRIED_PIXELS):
        return None
    return kept if _are_needed(kept, runs) else None


def _without_private_segments(data: bytes) -> tuple[bytes, list[int]] | None:
    """The JPEG at the start of `data` without private segments, and the ends of its runs of compressed data.

    None if the file does not have the usual structure.
    """
    kept = bytearray(data[:2])
    runs: list[int] = []
    used = _used_tables(data)
    end, is_in_scan = 2, False
    for segment in segments(data):
        between = data[end : segment.start]
        if is_in_scan:
            run = between.rstrip(b"\xff")  # filling: in data a zero follows
            runs += [len(kept) + restart.start() for restart in _RESTART.finditer(run)]
            kept += run
            runs.append(len(kept))
        elif between.strip(b"\xff"):  # more than filling
            return None
        end = segment.end
        if segment.marker == END_OF_IMAGE:
            return bytes(kept + data[segment.start : end]), runs
        if segment.marker in _STRANGE:
            return None
        kept += _kept_of(segment.marker, data[segment.start : end], used)
        is_in_scan = segment.marker == START_OF_SCAN
    return None


def _are_needed(data: bytes, runs: list[int]) -> bool:
    """Whether the decoder needs the last byte of each run; otherwise other bytes may hide there."""
    for end in runs:
        start = end - (2 if data[end - 2 : end] == b"\xff\0" else 1)
        if not is_cut_short(data[:start] + data[end:]):
            return False
    return True


def _used_tables(data: bytes) -> frozenset[tuple[int, int]]:
    """The tables that frames and scans name: the marker that defines each, and its class and number."""
    used: set[tuple[int, int]] = set()
    for marker, _, at, end in segments(data):
        if marker in FRAMES:
            used.update((_DQT, number) for number in data[at + 8 : end : 3])
        elif marker == START_OF_SCAN:
            count = sum(data[at : at + 1])  # 0 where the file ends before it
            chosen = data[at + 2 : at + 1 + 2 * count : 2]
            used.update((_DHT, number) for each in chosen for number in (each >> 4, 0x10 | each & 15))
    return frozenset(used)


def _only_used(marker: int, segment: bytes, used: frozenset[tuple[int, int]]) -> bytes:
    """A segment of tables without the unused ones."""
    kept, at = b"", 4
    while at < len(segment):
        head = segment[at]
        if marker == _DQT:
            number, size = head & 15, 1 + 64 * (1 + (head >> 4))
        else:
            number, size = head, 17 + sum(segment[at + 1 : at + 17])
        kept += segment[at : at + size] if (marker, number) in used else b""
        at += size
    return segment[:2] + (2 + len(kept)).to_bytes(2, "big") + kept if kept else b""


def _kept_of(marker: int, segment: bytes, used: frozenset[tuple[int, int]]) -> bytes:
    """The part of a segment (with its marker and length) that is kept: all, some of it, or nothing."""
    if marker in {_DQT, _DHT}:
        return _only_used(marker, segment, used)
    if marker in _DECODING:
        return segment
    says = _SHOWING.get(marker)
    if says is None or not segment[4:].startswith(says):
        return b""
    if marker == _APP0:
        return _shortened(segment, _JFIF_BYTES)[:-2] + b"\0\0"  # a thumbnail of no pixels
    if marker == _APP14:
        return _shortened(segment, _ADOBE_BYTES)
    return segment


def _shortened(segment: bytes, payload_bytes: int) -> bytes:
    return (
        segment[:2]
        + (2 + payload_bytes).to_bytes(2, "big")
        + segment[4 : 4 + payload_bytes].ljust(payload_bytes, b"\0")
    )

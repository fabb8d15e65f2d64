"""What a file is made of, counted without decoding: segments and scans of a JPEG, chunks of a PNG, and so on.

Pillow reads these parts one by one, in Python, and keeps some of them. A file of millions of tiny ones would take it
minutes or gigabytes; here it is refused within milliseconds. So is a JPEG of very many scans, each of which is a pass
over the whole picture.

Sources: ITU-T T.81, annex B (JPEG); PNG 3rd edition, clause 5; the GIF89a specification, clauses 15–26; TIFF 6.0,
section 2.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from dream.errors import ImageRejected
from dream.imaging.damage import DAMAGED
from dream.imaging.limits import Limits

__all__ = ["check_structure"]

_TOO_MANY_PARTS = "the file is made of too many small pieces"

#: Bytes as they lie in memory or in a mapped file.
_Bytes = bytes | mmap.mmap

# In a JPEG's compressed data FF is followed by 00 (a data byte), D0–D7 (a restart) or FF (filling). All else is the
# next marker.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END_OF_IMAGE = 0xD9
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, 0xD8})
#: Frames whose pixels are complete after a first scan of all components: decoders stop there.
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Filling between the segments of a JPEG's head. Cameras pad to a few KiB; Pillow reads it byte by byte.
_MOST_FILLING_BYTES = 2**20

#: Chunks of a PNG that hold pixels; there may be any number, unless they are shorter than encoders make them.
_PNG_DATA = frozenset({b"IDAT", b"fdAT"})
_LEAST_DATA_BYTES = 64

#: Tags of a TIFF that say where each strip, or each tile, lies.
_TIFF_PIECES = frozenset({273, 324})
_MOST_TIFF_PIECES = 200_000

_GIF_EXTENSION = ord("!")
#: Blocks of a GIF's frame; encoders fill each but the last, with 255 bytes.
_MOST_GIF_BLOCKS = 500_000


def check_structure(file: BinaryIO, limits: Limits) -> None:
    """Hold the parts of a JPEG, PNG, GIF or TIFF against the limits; other formats have none that matter.

    Raises:
      ImageRejected: it has too many, or one is longer than the file.
    """
    file.seek(0)
    head = file.read(8)
    check = next((check for magic, check in _CHECKS.items() if head.startswith(magic)), None)
    if check is None:
        return
    try:
        data: _Bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:  # it lies in memory
        file.seek(0)
        data = file.read()
    check(data, limits)


def _check_jpeg(data: _Bytes, limits: Limits) -> None:
    scans, segments, filling_bytes = _count_in_jpeg(data, limits.max_jpeg_scans, limits.max_parts)
    if scans > limits.max_jpeg_scans:
        raise ImageRejected(f"the picture is stored in more than {limits.max_jpeg_scans} layers (progressive scans)")
    if segments > limits.max_parts or filling_bytes > _MOST_FILLING_BYTES:
        raise ImageRejected(_TOO_MANY_PARTS)


def _count_in_jpeg(data: _Bytes, most_scans: int, most_segments: int) -> tuple[int, int, int]:
    """Scans, segments, and bytes between the segments before the first scan; counting stops where one is too high.

    Thumbnails in metadata do not count, nor does what a decoder does not come to.
    """
    scans = segments = filling_bytes = components = 0
    position = 2
    while scans <= most_scans and segments <= most_segments and filling_bytes <= _MOST_FILLING_BYTES:
        found = _NEXT_MARKER.search(data, position)
        if found is None or data[found.start() + 1] == _END_OF_IMAGE:
            break
        filling_bytes += 0 if scans else found.start() - position
        marker, position = data[found.start() + 1], found.end()
        segments += 1
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _FRAMES:
            components = data[position + 7] if marker in _SEQUENTIAL and position + 7 < len(data) else 0
        if marker == _START_OF_SCAN:
            scans += 1
            if components and data[position + 2 : position + 3] == bytes((components,)):
                break
        position += int.from_bytes(data[position : position + 2], "big")
    return scans, segments, filling_bytes


def _check_png(data: _Bytes, limits: Limits) -> None:
    parts = profiles = 0
    position = 8
    while position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        parts += kind not in _PNG_DATA or length < _LEAST_DATA_BYTES
        profiles += kind == b"iCCP"
        if parts > limits.max_parts or profiles > 1:  # each profile is unpacked
            raise ImageRejected(_TOO_MANY_PARTS)
        position += 12 + length
        if position > len(data):  # Pillow would ask for as much memory as the chunk claims to be long
            raise ImageRejected(DAMAGED)
        if kind == b"IEND":
            break


def _check_gif(data: _Bytes, limits: Limits) -> None:
    """Count frames, extensions and their blocks, up to the end or to what cannot be understood."""
    parts, position = 0, 13 + _colours_bytes(data, 10)
    while position < len(data) and data[position] in b"!,":
        if data[position] == _GIF_EXTENSION:
            blocks, position = _skip_blocks(data, position + 2, limits.max_parts)
            parts += blocks + 1
        else:
            first = position + 11 + _colours_bytes(data, position + 9)
            blocks, position = _skip_blocks(data, first, _MOST_GIF_BLOCKS)
            parts += 1
        if parts > limits.max_parts or blocks > _MOST_GIF_BLOCKS:
            raise ImageRejected(_TOO_MANY_PARTS)


def _colours_bytes(data: _Bytes, flags_at: int) -> int:
    """The length of the colour table that these flags announce."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_blocks(data: _Bytes, position: int, at_most: int) -> tuple[int, int]:
    """How many blocks there are up to the empty one that ends them, and where that is over."""
    blocks = 0
    while position < len(data) and data[position] and blocks <= at_most:
        position += 1 + data[position]
        blocks += 1
    return blocks, position + 1


def _check_tiff(data: _Bytes, _limits: Limits) -> None:
    """Look at how many strips or tiles the first directory speaks of; what cannot be understood is left to Pillow."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}L", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(entries):
            tag, _, pieces = struct.unpack_from(f"{order}HHL", data, start + 2 + 12 * entry)
            if tag in _TIFF_PIECES and pieces > _MOST_TIFF_PIECES:
                raise ImageRejected(_TOO_MANY_PARTS)
    except struct.error:
        return


_CHECKS: dict[bytes, Callable[[_Bytes, Limits], None]] = {
    b"\xff\xd8\xff": _check_jpeg,
    b"\x89PNG": _check_png,
    b"GIF8": _check_gif,
    b"II*\0": _check_tiff,
    b"MM\0*": _check_tiff,
}

"""What a file is made of, counted without decoding: segments and scans of a JPEG, chunks of a PNG, and so on.

Pillow reads these parts one by one, in Python, and keeps some of them. A file of millions of tiny ones would take it
minutes or gigabytes; here it is refused within milliseconds. So is a JPEG of very many scans, each of which is a pass
over the whole picture.

Sources: ITU-T T.81, annex B (JPEG); PNG 3rd edition, clause 5; the GIF89a specification, clauses 15–26; TIFF 6.0,
section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from dream.errors import ImageRejected
from dream.imaging.damage import DAMAGED, TOO_MANY_PARTS
from dream.imaging.jpeg_segments import END_OF_IMAGE, FRAMES, START_OF_SCAN, segments
from dream.imaging.limits import Limits
from dream.imaging.mapped import Bytes, mapped
from dream.imaging.memory import check_memory, coefficient_bytes
from dream.imaging.tiff import check_tiff

__all__ = ["check_structure"]

#: Frames whose pixels are complete after a first scan of all components: decoders stop there.
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
#: Filling between the segments of a JPEG's head, and between the parts of a GIF. Cameras pad to a few KiB; Pillow
#: reads it byte by byte.
_MOST_FILLING_BYTES = 2**20

#: Chunks of a PNG that hold pixels; there may be any number, unless they are shorter than encoders make them.
_PNG_DATA = frozenset({b"IDAT", b"fdAT"})
_LEAST_DATA_BYTES = 64

_GIF_EXTENSION, _GIF_END = ord("!"), ord(";")
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
    check(mapped(file), limits)


def _check_jpeg(data: Bytes, limits: Limits) -> None:
    """Count scans, segments, bytes between the segments before the first scan, and what several scans take to be read.

    Thumbnails in metadata do not count, nor does what a decoder does not come to.
    """
    scans = filling_bytes = components = coefficients = 0
    end = 2
    for parts, segment in enumerate(segments(data), start=1):
        if segment.marker == END_OF_IMAGE:
            break
        filling_bytes += 0 if scans else segment.start - end
        end = segment.end
        if segment.marker in FRAMES:
            components = _byte(data, segment.payload + 5) if segment.marker in _SEQUENTIAL else 0
            coefficients = coefficient_bytes(data, segment.payload)
        is_scan = segment.marker == START_OF_SCAN
        scans += is_scan
        if scans > limits.max_jpeg_scans:
            raise ImageRejected(
                f"the picture is stored in more than {limits.max_jpeg_scans} layers (progressive scans)"
            )
        if parts > limits.max_parts or filling_bytes > _MOST_FILLING_BYTES:
            raise ImageRejected(TOO_MANY_PARTS)
        if is_scan and components and _byte(data, segment.payload) == components:
            break
        if is_scan:  # the first of several
            check_memory(coefficients, limits, "save it as a JPEG that is not progressive")


def _byte(data: Bytes, position: int) -> int:
    """The byte there; 0 behind the end."""
    return data[position] if position < len(data) else 0


def _check_png(data: Bytes, limits: Limits) -> None:
    parts = profiles = 0
    position = 8
    while position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        parts += kind not in _PNG_DATA or length < _LEAST_DATA_BYTES
        profiles += kind == b"iCCP"
        if parts > limits.max_parts or profiles > 1:  # each profile is unpacked
            raise ImageRejected(TOO_MANY_PARTS)
        position += 12 + length
        if position > len(data):  # Pillow would ask for as much memory as the chunk claims to be long
            raise ImageRejected(DAMAGED)
        if kind == b"IEND":
            break


def _check_gif(data: Bytes, limits: Limits) -> None:
    """Count frames, extensions and their blocks, and the filling between them, which decoders skip byte by byte."""
    parts = filling_bytes = blocks = 0
    position = 13 + _colours_bytes(data, 10)
    while position < len(data) and data[position] != _GIF_END:
        if data[position] not in b"!,":
            filling_bytes, position = filling_bytes + 1, position + 1
        elif data[position] == _GIF_EXTENSION:
            blocks, position = _skip_blocks(data, position + 2, limits.max_parts)
            parts += blocks + 1
        else:
            first = position + 11 + _colours_bytes(data, position + 9)
            blocks, position = _skip_blocks(data, first, _MOST_GIF_BLOCKS)
            parts += 1
        if parts > limits.max_parts or blocks > _MOST_GIF_BLOCKS or filling_bytes > _MOST_FILLING_BYTES:
            raise ImageRejected(TOO_MANY_PARTS)


def _colours_bytes(data: Bytes, flags_at: int) -> int:
    """The length of the colour table that these flags announce."""
    flags = _byte(data, flags_at)
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_blocks(data: Bytes, position: int, at_most: int) -> tuple[int, int]:
    """How many blocks there are up to the empty one that ends them, and where that is over."""
    blocks = 0
    while position < len(data) and data[position] and blocks <= at_most:
        position += 1 + data[position]
        blocks += 1
    return blocks, position + 1


def _check_tiff(data: Bytes, _limits: Limits) -> None:
    check_tiff(data)


_CHECKS: dict[bytes, Callable[[Bytes, Limits], None]] = {
    b"\xff\xd8\xff": _check_jpeg,
    b"\x89PNG": _check_png,
    b"GIF8": _check_gif,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _check_tiff),
}

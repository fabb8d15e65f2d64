"""Check a file before it is decoded: count its pieces, and estimate its memory.

Pillow reads segments, chunks and frames one by one, in Python, and keeps some of them. A file of millions of tiny ones
would take it minutes or gigabytes; this check refuses such a file within milliseconds. It also refuses a JPEG of very
many scans, because each scan is a pass over the whole picture.

Most of the memory is pixels: the decoder's own, those that it hands over, and the picture that Pillow makes of them.
JPEGs are decoded row by row and at a reduced scale, but for several scans the decoder keeps all coefficients at full
size. `python -m benchmarks.memory` measures each kind.

Sources: ITU-T T.81, annex B (JPEG); PNG 3rd edition, clause 5; the GIF89a specification, clauses 15–26; TIFF 6.0,
section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from PIL.ImageFile import ImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.jpeg_segments import END_OF_IMAGE, FRAMES, START_OF_SCAN, segments
from dream.imaging.limits import Limits
from dream.imaging.mapped import Bytes, mapped
from dream.imaging.tiff import check_tiff

__all__ = ["animation_bytes", "check_memory", "check_structure", "coefficient_bytes", "pixel_bytes"]

#: Frames whose pixels are complete after a first scan of all components: decoders stop after it.
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
#: Filling between the segments of a JPEG's head, and between the parts of a GIF. Cameras pad to a few KiB; Pillow
#: reads it byte by byte.
_MOST_FILLING_BYTES = 2**20

#: Chunks of a PNG with pixels. Any number is accepted, unless they are shorter than encoders make them.
_PNG_DATA = frozenset({b"IDAT", b"fdAT"})
_LEAST_DATA_BYTES = 64

_GIF_EXTENSION, _GIF_END = ord("!"), ord(";")
#: Blocks of a GIF's frame; encoders fill each but the last, with 255 bytes.
_MOST_GIF_BLOCKS = 500_000


def check_structure(file: BinaryIO, limits: Limits) -> None:
    """Check the parts of a JPEG, PNG, GIF or TIFF against the limits; other formats have no such parts.

    Raises:
      ImageRejected: the file has too many parts, or a part is longer than the file.
    """
    file.seek(0)
    head = file.read(8)
    check = next((check for magic, check in _CHECKS.items() if head.startswith(magic)), None)
    if check is None:
        return
    check(mapped(file), limits)


def _check_jpeg(data: Bytes, limits: Limits) -> None:
    """Check scans, segments, the bytes between segments before the first scan, and the memory that several scans need.

    Thumbnails in metadata do not count, nor do parts that no decoder reaches.
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
            raise ImageRejected.because(Reason.TOO_MANY_LAYERS, most=limits.max_jpeg_scans)
        if parts > limits.max_parts or filling_bytes > _MOST_FILLING_BYTES:
            raise ImageRejected.because(Reason.TOO_MANY_PIECES)
        if is_scan and components and _byte(data, segment.payload) == components:
            break
        if is_scan:  # the first of several
            check_memory(coefficients, limits, Reason.PROGRESSIVE_TAKES_TOO_MUCH_MEMORY)


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
            raise ImageRejected.because(Reason.TOO_MANY_PIECES)
        position += 12 + length
        if position > len(data):  # Pillow would ask for as much memory as the chunk claims to be long
            raise ImageRejected.because(Reason.IMAGE_DAMAGED)
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
            raise ImageRejected.because(Reason.TOO_MANY_PIECES)


def _colours_bytes(data: Bytes, flags_at: int) -> int:
    """The length of the colour table that these flags announce."""
    flags = _byte(data, flags_at)
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_blocks(data: Bytes, position: int, at_most: int) -> tuple[int, int]:
    """The number of blocks up to the empty one that ends them, and the position behind it."""
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


#: Bytes a pixel at the peak, as measured with pictures of 40 million pixels, and a little more.
_BYTES_A_PIXEL = {"PNG": 12, "WEBP": 14, "AVIF": 16, "HEIF": 16, "TIFF": 12, "BMP": 8, "GIF": 8}
_BYTES_A_CANVAS_PIXEL, _BYTES_A_HELD_PIXEL = 21, 8
#: A block of a JPEG has 64 coefficients of 16 bits.
_BLOCK_PX, _BLOCK_BYTES = 8, 128


def check_memory(needed_bytes: int, limits: Limits, reason: Reason = Reason.TOO_MUCH_MEMORY) -> None:
    """Check an estimate against the limit.

    Raises:
      ImageRejected: the estimate is above the limit.
    """
    if needed_bytes > limits.max_decoding_bytes:
        raise ImageRejected.because(reason, needed=needed_bytes / 1e6, most=limits.max_decoding_bytes / 1e6)


def pixel_bytes(image: ImageFile) -> int:
    """The memory that decoding a picture takes; 0 for a JPEG, which `coefficient_bytes` estimates."""
    return image.width * image.height * _BYTES_A_PIXEL.get(image.format or "", 0)


def animation_bytes(canvas_px: int, held_px: int) -> int:
    """The memory that composing and encoding an animation takes.

    Parameters:
      canvas_px: pixels of one uploaded frame.
      held_px: pixels of all frames of the result together.
    """
    return canvas_px * _BYTES_A_CANVAS_PIXEL + held_px * _BYTES_A_HELD_PIXEL


def coefficient_bytes(data: Bytes, frame: int) -> int:
    """The bytes of coefficients that a JPEG's decoder keeps if a pixel is spread over several scans.

    Parameters:
      data: the file.
      frame: where the payload of its frame header begins (source: ITU-T T.81, B.2.2).
    """
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (1, 3))
    last = frame + 6 + 3 * sum(data[frame + 5 : frame + 6])
    factors = [(each >> 4, each & 15) for each in data[frame + 7 : last : 3]]
    across = max((each for each, _ in factors), default=1)
    down = max((each for _, each in factors), default=1)
    return sum(_blocks(width * h, across) * _blocks(height * v, down) for h, v in factors) * _BLOCK_BYTES


def _blocks(samples: int, highest: int) -> int:
    return -(-samples // (max(1, highest) * _BLOCK_PX))

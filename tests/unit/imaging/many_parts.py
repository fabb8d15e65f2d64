"""Files of very many parts, each as small as it can be, which decoders read one by one: of as many bytes as wanted."""

from __future__ import annotations

import struct
from collections.abc import Callable

from bare_files import grey_png, tiff
from imaging_pictures import encoded, noise, png_chunk, quarters

__all__ = ["OF_MANY_PARTS", "jpeg_of_scans"]


def _before_pixels_of_gif(data: bytes) -> bytes:
    gif = encoded(quarters(), "GIF")
    place = gif.index(b",\0\0\0\0")
    return gif[:place] + data + gif[place:]


def _after_head_of_jpeg(data: bytes) -> bytes:
    jpeg = encoded(quarters(), "JPEG")
    return jpeg[:2] + data + jpeg[2:]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _filled(part: bytes, size_bytes: int) -> bytes:
    return part * max(1, size_bytes // len(part))


def jpeg_of_scans(scans: int, edge_px: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs its decoder a pass over all pixels."""
    data = encoded(noise(edge_px, edge_px), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans + 1) + data[-2:]


def jpeg_of_comments(size_bytes: int) -> bytes:
    return _after_head_of_jpeg(_filled(_segment(0xFE, b""), size_bytes))


def jpeg_of_exifs(size_bytes: int) -> bytes:
    """Pillow puts the pieces of an Exif together one by one: quadratic time."""
    return _after_head_of_jpeg(_filled(_segment(0xE1, b"Exif\0\0x"), size_bytes))


def jpeg_of_filling(size_bytes: int) -> bytes:
    return _after_head_of_jpeg(b"\xff" * size_bytes)


def jpeg_of_segments_between_scans(size_bytes: int) -> bytes:
    data = encoded(quarters(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + _filled(_segment(0xFE, b""), size_bytes) + data[last:]


def png_of_texts(size_bytes: int) -> bytes:
    return grey_png(_filled(png_chunk(b"tEXt", b"a\0b"), size_bytes))


def png_of_unknown_chunks(size_bytes: int) -> bytes:
    return grey_png(_filled(png_chunk(b"juNk", b""), size_bytes))


def png_of_empty_data(size_bytes: int) -> bytes:
    return grey_png(_filled(png_chunk(b"IDAT", b""), size_bytes))


def gif_of_comments(size_bytes: int) -> bytes:
    return _before_pixels_of_gif(_filled(b"!\xfe\x01a\0", size_bytes))


def gif_of_one_comment(size_bytes: int) -> bytes:
    return _before_pixels_of_gif(b"!\xfe" + _filled(b"\x01a", size_bytes) + b"\0")


def gif_of_tiny_frames(size_bytes: int) -> bytes:
    frame = b"!\xf9\4\0\1\0\0\0" + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    head = b"GIF89a" + struct.pack("<HH", 300, 300) + b"\xf0\0\0" + bytes(6)
    return head + _filled(frame, size_bytes) + b";"


def gif_of_filling(size_bytes: int) -> bytes:
    return _before_pixels_of_gif(_filled(b"\0", size_bytes))


def gif_of_tiny_frames_behind_filling(size_bytes: int) -> bytes:
    """Decoders pass over a byte that begins nothing."""
    return _before_pixels_of_gif(b"\0" + gif_of_tiny_frames(size_bytes)[19:-1])


def gif_of_tiny_blocks(size_bytes: int) -> bytes:
    return encoded(quarters(), "GIF")[:-2] + _filled(b"\1a", size_bytes) + b"\0;"


def tiff_of_tiles(size_bytes: int) -> bytes:
    """Tiles of 2 × 2 pixels, all at one place of the file."""
    tiles = size_bytes // 4
    entries = [(256, 4, 1, 4000), (257, 4, 1, max(1, tiles // 1000)), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(277, 3, 1, 1), (322, 4, 1, 2), (323, 4, 1, 2), (324, 4, tiles, 1000), (325, 4, tiles, 1000)]
    return tiff(entries).ljust(1000, b"\0") + struct.pack("<L", 8) * tiles + bytes(100)


OF_MANY_PARTS: list[Callable[[int], bytes]] = [
    jpeg_of_comments,
    jpeg_of_exifs,
    jpeg_of_filling,
    jpeg_of_segments_between_scans,
    png_of_texts,
    png_of_unknown_chunks,
    png_of_empty_data,
    gif_of_comments,
    gif_of_one_comment,
    gif_of_tiny_frames,
    gif_of_filling,
    gif_of_tiny_frames_behind_filling,
    gif_of_tiny_blocks,
    tiff_of_tiles,
]

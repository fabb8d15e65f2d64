"""Placeholders as tiny PNGs in `data:` URLs, without Pillow; `dream.imaging.placeholder` makes their hashes."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import cache, lru_cache
from math import cos, pi

__all__ = ["data_url", "is_transparent"]

#: The longest edge: a hash has at most 7 frequencies a side.
_EDGE_PX = 16


@lru_cache(maxsize=1024)
def data_url(placeholder: str) -> str | None:
    """The blurred picture, to be stretched over the picture's area.

    Parameters:
      placeholder: the ThumbHash of an opaque picture, in base64.

    Returns:
      600 to 800 characters; None if the text is no such hash.
    """
    try:
        data = b64decode(placeholder, validate=True)
        if len(data) < 5 or is_transparent(placeholder):
            return None
        head, shape = int.from_bytes(data[:3], "little"), int.from_bytes(data[3:5], "little")
        return f"data:image/png;base64,{b64encode(_png(*_pixels(head, shape, data[5:]))).decode()}"
    except ValueError:  # also where values are missing
        return None


def is_transparent(placeholder: str) -> bool:
    """Whether the hash has alpha: a placeholder would stay visible behind the loaded picture."""
    try:
        return b64decode(placeholder[:4], validate=True)[2:3] >= b"\x80"
    except ValueError:
        return False


def _pixels(head: int, shape: int, rest: bytes) -> tuple[list[list[int]], int]:
    """The rows of samples, and the width in pixels (source: https://evanw.github.io/thumbhash/)."""
    is_wide, shorter = shape >> 15, max(1, shape & 7)
    across, down = (7, shorter) if is_wide else (shorter, 7)
    size = max(1, round(_EDGE_PX * across / 7)), max(1, round(_EDGE_PX * down / 7))
    levels = iter([part / 7.5 - 1 for byte in rest for part in (byte & 15, byte >> 4)])
    light = _plane((head & 63) / 63, (head >> 18 & 31) / 31, (max(3, across), max(3, down)), size, levels)
    # Reference decoders raise the saturation by a quarter, too.
    yellow = _plane((head >> 6 & 63) / 31.5 - 1, (shape >> 3 & 63) / 63 * 1.25, (3, 3), size, levels)
    red = _plane((head >> 12 & 63) / 31.5 - 1, (shape >> 9 & 63) / 63 * 1.25, (3, 3), size, levels)
    rows: list[list[int]] = []
    for lights, yellows, reds in zip(light, yellow, red, strict=True):
        row: list[int] = []
        for value, y, r in zip(lights, yellows, reds, strict=True):
            blue = value - 2 / 3 * y
            full = (3 * value - blue + r) / 2
            row += [round(255 * min(1.0, max(0.0, part))) for part in (full, full - r, blue)]
        rows.append(row)
    return rows, size[0]


def _plane(
    mean: float, scale: float, terms: tuple[int, int], size: tuple[int, int], levels: Iterator[float]
) -> list[list[float]]:
    """One channel, from the corner of its cosine transform."""
    (across, down), (width, height) = terms, size
    sums: list[list[float]] = []
    for term_y in range(down):
        row = [0.0] * width
        for term_x in range(0 if term_y else 1, across):
            if term_x * down >= across * (down - term_y):
                break
            level = _next(levels) * scale
            row = [value + level * wave for value, wave in zip(row, _wave(term_x, width), strict=True)]
        sums.append(row)
    columns = list(zip(*sums, strict=True))
    waves = zip(*(_wave(term_y, height) for term_y in range(down)), strict=True)
    return [[mean + 2 * sum(map(float.__mul__, column, wave)) for column in columns] for wave in waves]


def _next(levels: Iterator[float]) -> float:
    level = next(levels, None)
    if level is None:
        raise ValueError("the hash is too short")
    return level


@cache
def _wave(term: int, length: int) -> list[float]:
    return [cos(pi / length * (at + 0.5) * term) for at in range(length)]


def _png(rows: list[list[int]], width: int) -> bytes:
    """A PNG of samples in RGB; each row holds the difference from the row above (filter 2), which packs better."""
    above = [0] * (3 * width)
    packed = bytearray()
    for row in rows:
        packed += bytes([2, *((value - over) % 256 for value, over in zip(row, above, strict=True))])
        above = row
    size = width.to_bytes(4, "big") + len(rows).to_bytes(4, "big")
    parts = [(b"IHDR", size + bytes([8, 2, 0, 0, 0])), (b"IDAT", zlib.compress(packed, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

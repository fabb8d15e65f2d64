"""GIFs and animated PNGs put together by hand, with disposals, blends and places that encoders seldom write."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from imaging_pictures import png_chunk

__all__ = ["BLUE", "CLEAR", "GREEN", "RED", "WHITE", "Part", "apng", "gif"]

RED, GREEN, BLUE, WHITE = (220, 40, 40, 255), (40, 180, 60, 255), (40, 60, 200, 255), (255, 255, 255, 255)
CLEAR = (0, 0, 0, 0)
#: The colour table of the GIFs; a fifth colour is the transparent one.
_TABLE = (RED, GREEN, BLUE, WHITE)
_TRANSPARENT = 3


class Part(NamedTuple):
    """One frame of one colour.

    Parameters:
      colour: one of the above.
      box: left, top, width and height.
      disposal: as the format counts it.
      over: of an animated PNG: whether it blends.
      names_transparent: of a GIF: whether an index is transparent; the frame has it only where its colour is CLEAR.
    """

    colour: tuple[int, int, int, int]
    box: tuple[int, int, int, int] = (0, 0, 40, 40)
    disposal: int = 0
    over: bool = False
    names_transparent: bool = False


def gif(*parts: Part, size: tuple[int, int] = (40, 40), background: int = 0) -> bytes:
    out = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF1, background, 0) + b"".join(bytes(c[:3]) for c in _TABLE)
    out += b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    for part in parts:
        has_transparent = part.names_transparent or part.colour == CLEAR
        index = _TRANSPARENT if part.colour == CLEAR else _TABLE.index(part.colour)
        flags = part.disposal << 2 | has_transparent
        out += b"!\xf9\x04" + struct.pack("<BHB", flags, 20, _TRANSPARENT) + b"\0"
        out += b"," + struct.pack("<HHHHB", *part.box, 0) + _lzw(index, part.box[2] * part.box[3])
    return out + b";"


def _lzw(index: int, count: int) -> bytes:
    """Pixels of one index, in codes of three bits that never grow: a clear code stands before every two."""
    clear, end = 4, 5
    codes = [code for _ in range(0, count, 2) for code in (clear, index, index)]
    bits = "".join(f"{code:03b}" for code in reversed([*codes, end]))
    packed = int(bits, 2).to_bytes(-(-len(bits) // 8), "little")
    blocks = [packed[at : at + 255] for at in range(0, len(packed), 255)]
    return b"\x02" + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def apng(*parts: Part, default: tuple[int, int, int, int] | None = None, mode: str = "RGBA", plays: int = 0) -> bytes:
    """An animated PNG of 40 × 40 pixels; with `default` its still is no frame.

    Parameters:
      mode: RGBA; RGB, in which WHITE is the transparent colour; or L2, grey of 2 bits, where a frame has the level of
        its red and 3 is the transparent one.
    """
    colour_type, depth, key = {"RGBA": (6, 8, b""), "RGB": (2, 8, b"\0\xff" * 3), "L2": (0, 2, b"\0\3")}[mode]
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, depth, colour_type, 0, 0, 0))
    body = png_chunk(b"acTL", struct.pack(">II", len(parts), plays)) + (png_chunk(b"tRNS", key) if key else b"")
    number = 0
    if default is not None:
        body += png_chunk(b"IDAT", _rows(default, 40, 40, mode))
    for order, part in enumerate(parts):
        left, top, width, height = part.box
        control = struct.pack(">5I2H2B", number, width, height, left, top, 1, 5, part.disposal, part.over)
        body += png_chunk(b"fcTL", control)
        number += 1
        rows = _rows(part.colour, width, height, mode)
        if order == 0 and default is None:
            body += png_chunk(b"IDAT", rows)
        else:
            body += png_chunk(b"fdAT", struct.pack(">I", number) + rows)
            number += 1
    return b"\x89PNG\r\n\x1a\n" + head + body + png_chunk(b"IEND", b"")


def _rows(colour: tuple[int, int, int, int], width: int, height: int, mode: str) -> bytes:
    if mode == "L2":
        return zlib.compress((b"\0" + bytes((colour[0] * 0b01010101,)) * -(-width // 4)) * height)
    return zlib.compress((b"\0" + bytes(colour[: len(mode)]) * width) * height)

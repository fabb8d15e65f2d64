"""Transparency by a PNG's tRNS, in each kind of picture; seen at its left and right half.

The values are the specification's (3rd edition, clause 11.3.1.1); for lists that are too long, libpng's.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from imaging_pictures import is_near, pixel, png, png_chunk, run

Levels = tuple[int, ...]
RED, GREEN, BLUE = (220, 40, 40), (40, 180, 60), (40, 60, 200)
GREY, COLOUR, INDEX, GREY_ALPHA = 0, 2, 3, 4


def packed(levels: Levels, depth: int) -> bytes:
    bits = "".join(f"{level:0{depth}b}" for level in levels)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def halves(
    depth: int, colour: int, left: Levels | int, right: Levels | int, *chunks: bytes, interlaced: bool = False
) -> bytes:
    """A picture of 32 × 32 pixels; interlaced in seven passes."""
    left, right = ((half,) if isinstance(half, int) else half for half in (left, right))

    def rows(x: int, y: int, across: int, down: int) -> bytes:
        row = packed(tuple(level for at in range(x, 32, across) for level in (left if at < 16 else right)), depth)
        return (b"\0" + row) * len(range(y, 32, down))

    if not interlaced:
        return png(32, 32, depth, colour, rows(0, 0, 1, 1), *chunks)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    data = png(32, 32, depth, colour, b"".join(rows(*one) for one in passes), *chunks)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, depth, colour, 0, 0, 1))
    return data[:8] + header + data[33:]


def key(*levels: int) -> bytes:
    return png_chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))


def alphas(*levels: int) -> bytes:
    return png_chunk(b"tRNS", bytes(levels))


def palette(*colours: Levels) -> bytes:
    return png_chunk(b"PLTE", b"".join(map(bytes, colours)))


RGB_16 = (0x1212, 0x3434, 0x5656)
CASES: dict[str, tuple[bytes, Levels, Levels]] = {
    "grey of 1 bit, black": (halves(1, GREY, 0, 1, key(0)), (0, 0, 0, 0), (255, 255, 255, 255)),
    "grey of 1 bit, white": (halves(1, GREY, 0, 1, key(1)), (0, 0, 0, 255), (0, 0, 0, 0)),
    "grey of 2 bits": (halves(2, GREY, 1, 2, key(1)), (0, 0, 0, 0), (170, 170, 170, 255)),
    "grey of 2 bits, white": (halves(2, GREY, 3, 1, key(3)), (0, 0, 0, 0), (85, 85, 85, 255)),
    "grey of 2 bits, a key of more": (halves(2, GREY, 1, 2, key(0x101)), (0, 0, 0, 0), (170, 170, 170, 255)),
    "grey of 4 bits": (halves(4, GREY, 5, 6, key(5)), (0, 0, 0, 0), (102, 102, 102, 255)),
    "grey of 4 bits, not in it": (halves(4, GREY, 5, 6, key(7)), (85, 85, 85, 255), (102, 102, 102, 255)),
    "grey of 8 bits": (halves(8, GREY, 7, 8, key(7)), (0, 0, 0, 0), (8, 8, 8, 255)),
    "grey of 16 bits": (halves(16, GREY, 0x8000, 0xF000, key(0x8000)), (0, 0, 0, 0), (240, 240, 240, 255)),
    "grey of 16 bits, its neighbour stays": (
        halves(16, GREY, 0x1234, 0x1235, key(0x1234)),
        (0, 0, 0, 0),
        (18, 18, 18, 255),
    ),
    "grey of 2 bits, interlaced": (halves(2, GREY, 1, 2, key(1), interlaced=True), (0, 0, 0, 0), (170, 170, 170, 255)),
    "grey of 16 bits, interlaced": (
        halves(16, GREY, 0, 0xF000, key(0), interlaced=True),
        (0, 0, 0, 0),
        (240, 240, 240, 255),
    ),
    "colour of 8 bits": (halves(8, COLOUR, RED, GREEN, key(*RED)), (0, 0, 0, 0), (*GREEN, 255)),
    "colour of 8 bits, a key of more": (halves(8, COLOUR, RED, GREEN, key(0x1DC, 40, 40)), (0, 0, 0, 0), (*GREEN, 255)),
    "colour of 16 bits": (halves(16, COLOUR, RGB_16, (0xF000, 0, 0), key(*RGB_16)), (0, 0, 0, 0), (240, 0, 0, 255)),
    "colour of 16 bits, its neighbour stays": (
        halves(16, COLOUR, RGB_16, (0x1212, 0x3434, 0x5657), key(*RGB_16)),
        (0, 0, 0, 0),
        (18, 52, 86, 255),
    ),
    "colour of 16 bits, interlaced": (
        halves(16, COLOUR, RGB_16, (0x1212, 0x3434, 0x5657), key(*RGB_16), interlaced=True),
        (0, 0, 0, 0),
        (18, 52, 86, 255),
    ),
    "palette of 1 bit": (halves(1, INDEX, 0, 1, palette(RED, GREEN), alphas(0)), (0, 0, 0, 0), (*GREEN, 255)),
    "palette of 2 bits, half": (
        halves(2, INDEX, 0, 2, palette(RED, GREEN, BLUE), alphas(128, 9)),
        (*RED, 128),
        (*BLUE, 255),
    ),
    "palette of 4 bits": (
        halves(4, INDEX, 0, 2, palette(RED, GREEN, BLUE), alphas(64, 255, 0)),
        (*RED, 64),
        (0, 0, 0, 0),
    ),
    "palette of 8 bits, fewer alphas": (
        halves(8, INDEX, 0, 2, palette(RED, GREEN, BLUE), alphas(0)),
        (0, 0, 0, 0),
        (*BLUE, 255),
    ),
    "palette, too many alphas": (
        halves(8, INDEX, 0, 1, palette(RED, GREEN), alphas(0, 0, 0)),
        (*RED, 255),
        (*GREEN, 255),
    ),
    "palette, 256 alphas": (
        halves(4, INDEX, 0, 1, palette(RED, GREEN), alphas(*[0] * 256)),
        (*RED, 255),
        (*GREEN, 255),
    ),
    "palette, 300 alphas": (
        halves(8, INDEX, 0, 1, palette(RED, GREEN), alphas(*[0] * 300)),
        (*RED, 255),
        (*GREEN, 255),
    ),
    "palette, alphas before it": (halves(8, INDEX, 0, 1, alphas(0), palette(RED, GREEN)), (*RED, 255), (*GREEN, 255)),
    "palette, alphas twice": (
        halves(8, INDEX, 0, 1, palette(RED, GREEN), alphas(0), alphas(255, 0)),
        (0, 0, 0, 0),
        (*GREEN, 255),
    ),
    "a key that is too short": (halves(8, COLOUR, RED, GREEN, alphas(0, 220)), (*RED, 255), (*GREEN, 255)),
    "grey with alpha of 16 bits": (
        halves(16, GREY_ALPHA, (0x5A00, 0), (0x5A00, 0x8000)),
        (0, 0, 0, 0),
        (90, 90, 90, 128),
    ),
    "grey with alpha, and a key": (
        halves(8, GREY_ALPHA, (90, 255), (90, 200), key(90)),
        (90, 90, 90, 255),
        (90, 90, 90, 200),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_is_transparent(tmp_path: Path, kind: str) -> None:
    data, left, right = CASES[kind]
    _, out = run(tmp_path, data, output_format="webp")
    for share, expected in ((0.2, left), (0.8, right)):
        seen = pixel(out, share, 0.5)
        assert is_near(seen[3:], expected[3:], 1)
        assert expected[3] == 0 or is_near(seen, expected, 3)


@pytest.mark.parametrize(
    "keyword",
    [b"transparency", b"interlace", b"bbox", b"icc_profile", b"gamma", b"chromaticity", b"default_image", b"exif"],
)
def test_a_text_is_no_more_than_a_text(tmp_path: Path, keyword: bytes) -> None:
    """Pillow keeps texts beside what other chunks say, by the same names."""
    chunk = png_chunk(b"tEXt", keyword + b"\0hello")
    data = halves(8, COLOUR, RED, GREEN, chunk)
    end = png_chunk(b"IEND", b"")
    for text_at in (data, halves(8, COLOUR, RED, GREEN).replace(end, chunk + end)):
        _, out = run(tmp_path, text_at)
        assert out.mode == "RGB"
        assert is_near(pixel(out, 0.2, 0.5), RED, 6)


@pytest.mark.parametrize("chunk", [b"gAMA", b"cHRM", b"sRGB", b"pHYs"])
def test_a_chunk_that_is_too_short_does_not_spoil_the_picture(tmp_path: Path, chunk: bytes) -> None:
    _, out = run(tmp_path, halves(8, COLOUR, RED, GREEN, png_chunk(chunk, b"")))
    assert is_near(pixel(out, 0.2, 0.5), RED, 6)

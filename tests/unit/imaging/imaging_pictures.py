"""Pictures that the tests draw, and ways to look at results."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from pillow_heif import from_pillow

from dream.errors import ImageRejected
from dream.imaging import Limits, Processed, process_file

#: Top left, top right, bottom left, bottom right of `quarters`.
RED, GREEN, BLUE, YELLOW = (220, 40, 40), (40, 180, 60), (40, 60, 200), (230, 210, 40)


def quarters(width: int = 160, height: int = 96) -> Image.Image:
    """A picture whose four corners differ."""
    picture = Image.new("RGB", (width, height), RED)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    pen.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    pen.rectangle((width // 2, height // 2, width, height), fill=YELLOW)
    return picture


def noise(width: int, height: int, sigma: float = 200) -> Image.Image:
    """A picture that does not compress."""
    return Image.merge("RGB", [Image.effect_noise((width, height), sigma) for _ in range(3)])


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file's bytes."""
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def heic(picture: Image.Image, orientation: int = 1) -> bytes:
    """The picture as a HEIC, with something private in its Exif."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    file = from_pillow(picture)
    file.save(out, quality=90, exif=exif.tobytes() + b"PRIVATE words")
    return out.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of exactly this header and these pixels (each row with its filter byte)."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join((header, *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


def run(folder: Path, data: bytes, **limits: Any) -> tuple[Processed, Image.Image]:
    """Process a file's bytes; the result's description and pixels."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    processed = process_file(source, target, Limits(**limits))
    picture = Image.open(target)
    picture.load()
    assert picture.size == (processed.width_px, processed.height_px)
    assert target.stat().st_size == processed.size_bytes
    assert sorted(path.name for path in folder.iterdir()) == ["source", "target"]
    return processed, picture


def reason(folder: Path, data: bytes, **limits: Any) -> str:
    """Why the file is refused; checked to be a clause for people."""
    source = folder / "secret-name.jpg"
    source.write_bytes(data)
    with pytest.raises(ImageRejected) as caught:
        process_file(source, folder / "target", Limits(**limits))
    message = str(caught.value)
    assert re.fullmatch(r"the (file|picture|animation) [^/\\_]+[^/\\_.]", message), message
    assert "secret" not in message
    assert "Error" not in message
    assert [path.name for path in folder.iterdir()] == ["secret-name.jpg"]
    return message


def pixel(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place given as shares of width and height."""
    value = picture.convert("RGBA").getpixel((int(picture.width * x), int(picture.height * y)))
    assert isinstance(value, tuple)
    return tuple(int(part) for part in value)


def is_near(colour: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=False))

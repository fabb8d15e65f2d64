"""A damaged TIFF is refused, also where libtiff makes something of it; a whole one is not."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from imaging_pictures import encoded, quarters, reason, run
from PIL import Image, ImageDraw
from PIL.TiffImagePlugin import TiffImageFile

FAXES = ("group3", "group4", "tiff_ccitt")
OTHERS = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")


def page(kind: str) -> Image.Image:
    """Something to read, of 400 × 400 pixels; a fax in black and white."""
    picture = quarters(400, 400)
    pen = ImageDraw.Draw(picture)
    for number in range(40):
        pen.text((10 + number % 4 * 90, 10 + number // 4 * 38), f"Text {number}", fill="black")
    return picture.convert("L").point(lambda level: 255 * (level > 20)).convert("1") if kind in FAXES else picture


def tiff(kind: str) -> bytes:
    return encoded(page(kind), "TIFF", compression=kind)


def strip(data: bytes) -> slice:
    """The place of the middle strip's bytes."""
    tags = TiffImageFile(io.BytesIO(data)).tag_v2
    middle = len(tags[273]) // 2
    return slice(tags[273][middle], tags[273][middle] + tags[279][middle])


@pytest.mark.parametrize("kind", [*FAXES, *OTHERS])
def test_a_whole_one_is_accepted(tmp_path: Path, kind: str) -> None:
    _, out = run(tmp_path, tiff(kind))
    assert out.size == (400, 400)


@pytest.mark.parametrize("kind", [*FAXES, *OTHERS])
def test_of_other_bytes_from_a_third_on(tmp_path: Path, kind: str) -> None:
    data = bytearray(tiff(kind))
    place = strip(data)
    start = place.start + (place.stop - place.start) // 3
    data[start : place.stop] = random.Random(1).randbytes(place.stop - start)
    assert "damaged" in reason(tmp_path, bytes(data))


@pytest.mark.parametrize("kind", [*FAXES, "tiff_lzw", "packbits"])
def test_of_zeros_from_a_third_on(tmp_path: Path, kind: str) -> None:
    data = bytearray(tiff(kind))
    place = strip(data)
    start = place.start + (place.stop - place.start) // 3
    data[start : place.stop] = bytes(place.stop - start)
    assert "damaged" in reason(tmp_path, bytes(data))


@pytest.mark.parametrize("kind", [*FAXES, *OTHERS])
def test_that_is_cut(tmp_path: Path, kind: str) -> None:
    """The strip's own length says that less is there; the file goes on."""
    data = bytearray(tiff(kind))
    place = strip(data)
    (directory,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    entries = (directory + 2 + 12 * number for number in range(count))
    at = next(entry for entry in entries if struct.unpack_from("<H", data, entry) == (279,))
    _, of_type, strips, where = struct.unpack_from("<HHLL", data, at)
    letter = {3: "H", 4: "L"}[of_type]
    start = at + 8 if strips * struct.calcsize(f"<{letter}") <= 4 else where
    struct.pack_into(f"<{letter}", data, start + strips // 2 * struct.calcsize(f"<{letter}"), len(data[place]) // 2)
    assert "damaged" in reason(tmp_path, bytes(data))


@pytest.mark.parametrize("seed", range(10))
def test_a_group_4_of_one_wrong_byte(tmp_path: Path, seed: int) -> None:
    """Each row says how it differs from the one above, so all that follows is wrong."""
    data = bytearray(tiff("group4"))
    place = strip(data)
    at = place.start + (place.stop - place.start) * (seed + 1) // 12
    data[at] ^= 0x55
    assert "damaged" in reason(tmp_path, bytes(data))

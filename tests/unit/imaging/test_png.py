"""PNGs that are decoded outside Pillow come out as they would of Pillow, and fail as they would there.

Who has decoded can be told by the checksum behind the pixels: Pillow refuses a wrong one, and the crate, which goes by
those of the file's chunks, does not look at it.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from imaging_pictures import encoded, noise, png_chunk, quarters, run
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from dream.errors import ImageRejected
from dream.imaging.png import PngFile
from dream.imaging.transform import resize


def picture(mode: str) -> Image.Image:
    """Something of each filter: flat areas, edges and noise, and in mode RGBA some of it see-through."""
    drawn = quarters(300, 200)
    drawn.paste(noise(120, 90, 40), (60, 50))
    drawn.paste(Image.linear_gradient("L").resize((100, 150)), (190, 30))
    if mode == "RGBA":
        drawn.putalpha(Image.radial_gradient("L").resize(drawn.size))
    return drawn.convert(mode)


COMMON = {mode: encoded(picture(mode), "PNG") for mode in ("L", "RGB", "RGBA")}
UNCOMMON = {
    "grey with alpha": encoded(picture("LA"), "PNG"),
    "palette": encoded(picture("RGB").quantize(16), "PNG"),
    "16 bits": encoded(picture("L").convert("I;16"), "PNG"),
    "black and white": encoded(picture("1"), "PNG"),
    "a transparent colour": encoded(picture("RGB"), "PNG", transparency=(220, 40, 40)),
    "a transparent grey": encoded(picture("L"), "PNG", transparency=40),
}


def with_wrong_checksum(data: bytes) -> bytes:
    """The same file with another Adler-32 behind its pixels, all in one chunk."""
    start = data.index(b"IDAT") - 4
    packed = b"".join(part[4:-4] for part in _chunks(data) if part.startswith(b"IDAT"))
    return data[:start] + png_chunk(b"IDAT", packed[:-4] + bytes(4)) + png_chunk(b"IEND", b"")


def _chunks(data: bytes) -> list[bytes]:
    """Kind, data and checksum of each chunk."""
    found, at = [], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    return found


def loaded(opener: type[PngImageFile], data: bytes) -> tuple[str, bytes, object]:
    """Mode, pixels and Exif; of a file that cannot be read, what Pillow says."""
    try:
        image = opener(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return type(error).__name__, b"", str(error)
    return image.mode, image.tobytes(), image.info.get("exif")


@pytest.mark.parametrize("mode", COMMON)
def test_a_common_one_is_decoded_by_the_crate_to_the_same_pixels(mode: str) -> None:
    by_pillow = loaded(PngImageFile, COMMON[mode])
    assert loaded(PngFile, COMMON[mode]) == loaded(PngFile, with_wrong_checksum(COMMON[mode])) == by_pillow


@pytest.mark.parametrize("kind", UNCOMMON)
def test_an_uncommon_one_is_decoded_by_pillow(tmp_path: Path, kind: str) -> None:
    assert loaded(PngFile, UNCOMMON[kind]) == loaded(PngImageFile, UNCOMMON[kind])
    with pytest.raises(ImageRejected, match="damaged"):
        run(tmp_path, with_wrong_checksum(UNCOMMON[kind]))


def test_an_interlaced_one_is_decoded_by_pillow() -> None:
    """Of one pixel, which takes one pass."""
    data = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
    head = bytearray(data[12:29])
    head[16] = 1
    interlaced = data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]
    assert loaded(PngFile, interlaced)[1] == bytes((1, 2, 3))
    assert loaded(PngFile, with_wrong_checksum(interlaced))[0] == "OSError"


@pytest.mark.parametrize("mode", COMMON)
def test_one_that_is_cut_or_changed_ends_as_in_pillow(mode: str) -> None:
    """Cut at every hundredth, and a bit flipped there."""
    data = COMMON[mode]
    for hundredth in range(100):
        at = len(data) * hundredth // 100
        flipped = bytearray(data)
        flipped[at] ^= 1 << hundredth % 8
        for spoilt in (data[:at], bytes(flipped)):
            assert loaded(PngFile, spoilt) == loaded(PngImageFile, spoilt), hundredth


def test_what_stands_behind_the_pixels_is_read() -> None:
    exif = Image.Exif()
    exif[274] = 6
    packed = exif.tobytes().removeprefix(b"Exif\0\0")
    data = COMMON["RGB"].replace(png_chunk(b"IEND", b""), png_chunk(b"eXIf", packed) + png_chunk(b"IEND", b""))
    image = PngFile(io.BytesIO(data))
    assert image.getexif()[274] == 6  # its size is asked for before its pixels
    image.load()
    assert image.getexif()[274] == 6


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("wanted", [(299, 600), (100, 7), (300, 77), (33, 273), (300, 700)])
def test_a_picture_that_is_reduced_while_it_loads_has_the_pixels_of_one_reduced_later(
    mode: str, wanted: tuple[int, int]
) -> None:
    """The strips of rows leave no seams. A picture with transparency is reduced later: its alpha may hide nothing."""
    drawn = picture(mode).resize((300, 700))
    image = PngFile(io.BytesIO(encoded(drawn, "PNG")))
    image.reduce_to(wanted)
    image.load()
    assert image.size == (drawn.size if mode == "RGBA" else wanted)
    assert resize(image, wanted).tobytes() == resize(drawn, wanted).tobytes()

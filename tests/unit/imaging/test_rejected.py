"""Bad and hostile files are refused, quickly, and with a sentence that their owner can read."""

from __future__ import annotations

import io
import re
import struct
import time
from pathlib import Path

import pytest
from imaging_pictures import encoded, noise, png, quarters
from PIL import Image

from dream.errors import ImageRejected
from dream.imaging import Limits, process_file

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"]


def reason(folder: Path, data: bytes, **limits: int) -> str:
    """Why the file is refused; checked to be a clause for people."""
    source = folder / "secret-name.jpg"
    source.write_bytes(data)
    with pytest.raises(ImageRejected) as caught:
        process_file(source, folder / "target", Limits(**limits))
    message = str(caught.value)
    assert re.fullmatch(r"the (file|picture) [^/\\_]+[^/\\_.]", message), message
    assert "secret" not in message
    assert "Error" not in message
    assert [path.name for path in folder.iterdir()] == ["secret-name.jpg"]
    return message


@pytest.mark.parametrize(
    "data",
    [
        b"just some text, of a fair length so that nothing is missing",
        b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        b"<?xml version='1.0'?><svg/>",
        b"%PDF-1.7 and so on",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"PK\x03\x04 a document",
        b"\0" * 1000,
        b"\xff",
        b"P6 4 4 255 " + bytes(48),
    ],
)
def test_what_is_no_accepted_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "JPEG, PNG" in reason(tmp_path, data)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, b"") == "the file is empty"


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in reason(tmp_path, bytes(2**20 + 1), max_source_bytes=2**20)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_cut_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = encoded(noise(120, 120), kind)
    reason(tmp_path, data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.99])
@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": "4:4:4"}])
def test_a_cut_jpeg_is_refused_at_a_reduced_scale_too(tmp_path: Path, share: float, options: dict[str, str]) -> None:
    data = encoded(noise(400, 400), "JPEG", **options)
    assert "incomplete" in reason(tmp_path, data[: int(len(data) * share)], max_edge_px=50)


@pytest.mark.parametrize("kind", FORMATS)
def test_only_a_magic_number_is_refused(tmp_path: Path, kind: str) -> None:
    reason(tmp_path, encoded(quarters(), kind)[:16])


def test_bytes_changed_at_random_are_refused_or_processed(tmp_path: Path) -> None:
    """Never another exception than ImageRejected, whatever part of a header is broken."""
    source, target = tmp_path / "source", tmp_path / "target"
    for kind in FORMATS:
        good = encoded(quarters(), kind)
        for place in range(0, min(len(good), 400), 3):
            bad = bytearray(good)
            bad[place] ^= 0xFF
            source.write_bytes(bad)
            try:
                process_file(source, target, Limits(max_pixels=1_000_000, max_jpeg_pixels=1_000_000))
            except ImageRejected:
                continue


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(quarters(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(quarters(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def gif_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(quarters(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png(50_000, 50_000, 8, 2, b"\0" * 100),
        jpeg_of_size(65_000, 65_000),
        bmp_of_size(40_000, 40_000),
        gif_of_size(60_000, 60_000),
    ],
    ids=["png", "jpeg", "bmp", "gif"],
)
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, data: bytes) -> None:
    started_s = time.monotonic()
    assert "million pixels" in reason(tmp_path, data)
    assert time.monotonic() - started_s < 1


def test_a_side_too_long_is_refused(tmp_path: Path) -> None:
    assert "neither side" in reason(tmp_path, png(70_000, 1, 8, 0, b"\0" * 70_001))


def test_limits_differ_for_jpeg(tmp_path: Path) -> None:
    picture = quarters(200, 100)
    limits = {"max_pixels": 10_000, "max_jpeg_pixels": 20_000}
    assert "0.01 million are accepted" in reason(tmp_path, encoded(picture, "PNG"), **limits)
    source = tmp_path / "secret-name.jpg"
    source.write_bytes(encoded(picture, "JPEG"))
    assert process_file(source, tmp_path / "target", Limits(**limits)).width_px == 200


@pytest.mark.parametrize("kind", FORMATS)
def test_a_wrong_extension_does_not_matter(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "picture.txt"
    source.write_bytes(encoded(quarters(), kind))
    assert process_file(source, tmp_path / "out", Limits()).extension == "jpg"


def test_a_multi_picture_jpeg_is_its_first_picture(tmp_path: Path) -> None:
    out = io.BytesIO()
    quarters().save(out, format="MPO", save_all=True, append_images=[Image.new("RGB", (80, 80))])
    source = tmp_path / "source"
    source.write_bytes(out.getvalue())
    processed = process_file(source, tmp_path / "out", Limits())
    assert (processed.width_px, processed.height_px) == (160, 96)


def test_a_missing_file_is_not_the_pictures_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process_file(tmp_path / "none", tmp_path / "out", Limits())

"""Pictures that need too much memory to be decoded are refused by their header, with a sentence."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from imaging_pictures import encoded, heic, noise, quarters, reason, run
from PIL import Image

from dream.imaging.decode import open_image
from dream.imaging.jpeg_segments import FRAMES, segments
from dream.imaging.limits import Limits
from dream.imaging.structure import coefficient_bytes

PIXELS = 200 * 100


def frame(data: bytes) -> int:
    return next(segment.payload for segment in segments(data) if segment.marker in FRAMES)


@pytest.mark.parametrize(
    ("mode", "subsampling", "blocks"),
    [
        ("L", None, 16 * 8),
        ("RGB", "4:4:4", 3 * 16 * 8),
        ("RGB", "4:2:0", 16 * 8 + 2 * 8 * 4),
        ("CMYK", "4:4:4", 4 * 16 * 8),
    ],
)
def test_coefficients_are_counted_as_the_header_says(mode: str, subsampling: str | None, blocks: int) -> None:
    options = {"subsampling": subsampling} if subsampling else {}
    data = encoded(Image.new(mode, (127, 63)), "JPEG", progressive=True, **options)
    assert coefficient_bytes(data, frame(data)) == blocks * 128


def test_a_header_that_is_cut_counts_as_far_as_it_goes() -> None:
    data = encoded(quarters(), "JPEG", progressive=True)
    for length in range(frame(data), frame(data) + 17):
        assert coefficient_bytes(data[:length], frame(data)) >= 0


@pytest.mark.parametrize(("subsampling", "is_refused"), [("4:4:4", True), ("4:2:0", False)])
def test_a_progressive_jpeg_of_100_megapixels(tmp_path: Path, subsampling: str, is_refused: bool) -> None:
    """Of 600 MB of coefficients, and of 300."""
    data = bytearray(encoded(noise(64, 64), "JPEG", progressive=True, subsampling=subsampling))
    start = frame(bytes(data))
    data[start + 1 : start + 5] = struct.pack(">HH", 10_000, 10_000)
    limits = Limits(max_decoding_bytes=400_000_000)
    if is_refused:
        assert reason(tmp_path, bytes(data), max_decoding_bytes=limits.max_decoding_bytes) == (
            "the picture takes about 600 MB of memory to be decoded, more than the 400 MB allowed; "
            "save it as a JPEG that is not progressive"
        )
    else:
        assert open_image(io.BytesIO(data), limits).size == (10_000, 10_000)


def test_a_baseline_jpeg_takes_its_rows_only(tmp_path: Path) -> None:
    run(tmp_path, encoded(quarters(200, 100), "JPEG"), max_decoding_bytes=1)
    assert "MB of memory" in reason_in(tmp_path, encoded(quarters(200, 100), "JPEG", progressive=True))


def test_a_baseline_jpeg_of_several_scans_is_held_whole(tmp_path: Path) -> None:
    """Its components follow each other; a scan of one of three is the first."""
    data = bytearray(encoded(quarters(200, 100), "JPEG", progressive=True))
    data[data.index(b"\xff\xc2") + 1] = 0xC0
    scan = data.index(b"\xff\xda")
    data[scan : scan + 14] = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(4)
    assert "MB of memory" in reason_in(tmp_path, bytes(data))


def reason_in(folder: Path, data: bytes, max_decoding_bytes: int = 10_000) -> str:
    inner = folder / "inner"
    inner.mkdir(exist_ok=True)
    for path in inner.iterdir():
        path.unlink()
    return reason(inner, data, max_decoding_bytes=max_decoding_bytes)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "HEIF"])
def test_every_other_format_is_bounded_too(tmp_path: Path, kind: str) -> None:
    picture = quarters(200, 100)
    data = heic(picture) if kind == "HEIF" else encoded(picture, kind)
    said = reason_in(tmp_path, data, 8 * PIXELS - 1)
    assert said == "the picture takes about 0 MB of memory to be decoded, more than the 0 MB allowed; make it smaller"
    run_in(tmp_path, data, 16 * PIXELS)


def run_in(folder: Path, data: bytes, max_decoding_bytes: int) -> None:
    outer = folder / "outer"
    outer.mkdir(exist_ok=True)
    run(outer, data, max_decoding_bytes=max_decoding_bytes)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_that_are_held_together_count(tmp_path: Path, kind: str) -> None:
    frames = [noise(200, 100).quantize(8).convert("RGB") for _ in range(4)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert "of memory" in reason_in(tmp_path, data, (21 + 4 * 8) * PIXELS - 1)
    run_in(tmp_path, data, (21 + 4 * 8) * PIXELS)


def test_the_default_admits_what_the_limits_of_pixels_admit() -> None:
    """But for progressive JPEGs of more than three full components."""
    limits = Limits()
    assert limits.max_pixels * 16 <= limits.max_decoding_bytes
    assert limits.max_jpeg_pixels * 6 <= limits.max_decoding_bytes

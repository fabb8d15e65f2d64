"""Bad and hostile files are refused, quickly, and with a sentence that their owner can read."""

from __future__ import annotations

import io
from pathlib import Path

import hostile
import pytest
from imaging_pictures import encoded, noise, png, quarters, reason
from PIL import Image

from dream.imaging import Limits, process_file

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"]


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    assert "more than the 1.0 MB allowed" in reason(tmp_path, bytes(2**20 + 1), max_source_bytes=2**20)


@pytest.mark.parametrize("rest", [b"", b"\x00\x02", b"\x00\x02\xff\xd9", b"\x00\x03\x01", b"\x00\x0c", b"\x00\x0c\x03"])
def test_a_jpeg_that_ends_in_a_scan_header_is_damaged(tmp_path: Path, rest: bytes) -> None:
    """An empty or cut header is the picture's fault, no crash that is tried again."""
    data = encoded(noise(64, 64), "JPEG")
    assert "damaged" in reason(tmp_path, data[: data.index(b"\xff\xda") + 2] + rest)


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


def test_a_side_too_long_is_refused(tmp_path: Path) -> None:
    assert "neither side" in reason(tmp_path, png(70_000, 1, 8, 0, b"\0" * 70_001))


def test_limits_differ_for_jpeg(tmp_path: Path) -> None:
    picture = quarters(200, 100)
    limits = {"max_pixels": 10_000, "max_jpeg_pixels": 20_000}
    assert "0.01 million are accepted" in reason(tmp_path, encoded(picture, "PNG"), **limits)
    source = tmp_path / "secret-name.jpg"
    source.write_bytes(encoded(picture, "JPEG"))
    assert process_file(source, tmp_path / "target", Limits(**limits)).width_px == 200


@pytest.mark.parametrize("name", ["jpeg of 12 bits", "bmp of an unknown compression"])
def test_what_is_whole_but_of_an_uncommon_kind_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    assert "uncommon" in reason(tmp_path, hostile.BROKEN[name])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_wrong_extension_does_not_matter(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "picture.txt"
    source.write_bytes(encoded(quarters(), kind))
    assert process_file(source, tmp_path / "out", Limits()).extension == ("jpg" if kind == "JPEG" else "webp")


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

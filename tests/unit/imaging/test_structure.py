"""Files made of very many parts are refused before a decoder reads them one by one; ordinary ones are let through."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import many_parts
import pytest
from imaging_pictures import encoded, noise, quarters
from PIL import Image

from dream.errors import ImageRejected, Reason
from dream.imaging import Limits
from dream.imaging.structure import check_structure

LIMITS = Limits(max_jpeg_scans=20, max_parts=200)


def is_refused(data: bytes, limits: Limits = LIMITS) -> bool:
    """Whether it has too many parts; that a part is cut off does not count."""
    try:
        check_structure(io.BytesIO(data), limits)
    except ImageRejected as error:
        return str(error) != Reason.IMAGE_DAMAGED.sentence
    return False


def test_a_thousand_scans_are_counted_in_less_than_a_millisecond() -> None:
    data = many_parts.jpeg_of_scans(1_000, edge_px=100)
    assert len(data) > 400_000
    took_s = []
    for _ in range(20):
        started_s = time.process_time()
        assert is_refused(data, Limits())
        took_s.append(time.process_time() - started_s)
    assert min(took_s) < 0.001


def test_scans_count_up_to_the_limit() -> None:
    usual = encoded(quarters(), "JPEG", progressive=True).count(b"\xff\xda")
    assert not is_refused(many_parts.jpeg_of_scans(20 - usual))
    assert is_refused(many_parts.jpeg_of_scans(21 - usual))


def test_scans_of_thumbnails_and_behind_the_picture_do_not_count() -> None:
    thumbnail = encoded(quarters(40, 24), "JPEG", progressive=True)
    metadata = b"Exif\0\0" + b"".join(thumbnail for _ in range(5))
    assert not is_refused(encoded(quarters(), "JPEG", progressive=True, exif=metadata) + b"\xff\xda\0\x02" * 500)


def test_a_sequential_jpeg_is_read_no_further_than_its_scan() -> None:
    """Pixels follow: a photo of 4 MB is not searched for markers."""
    assert not is_refused(encoded(quarters(), "JPEG") + b"\xff\xda\0\x02" * 500)


@pytest.mark.parametrize("make", many_parts.OF_MANY_PARTS)
def test_very_many_parts_are_refused_at_once(tmp_path: Path, make: Callable[[int], bytes]) -> None:
    """4 MiB of them, in memory and in a file; each fills its file with parts as small as they can be."""
    data = make(4 * 2**20)
    assert 2**21 < len(data) < 2**23
    started_s = time.process_time()
    assert is_refused(data, Limits())
    source = tmp_path / "source"
    source.write_bytes(data)
    with source.open("rb") as file, pytest.raises(ImageRejected, match="too many small pieces"):
        check_structure(file, Limits())
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize("make", many_parts.OF_MANY_PARTS)
def test_a_few_parts_are_let_through(make: Callable[[int], bytes]) -> None:
    assert not is_refused(make(2_000), Limits())


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(600, 600), "PNG"),
        encoded(noise(600, 600), "GIF"),
        encoded(noise(64, 64), "GIF", save_all=True, append_images=[noise(64, 64) for _ in range(20)]),
        encoded(noise(64, 64), "PNG", save_all=True, append_images=[noise(64, 64) for _ in range(10)]),
        encoded(quarters(), "TIFF", save_all=True, append_images=[quarters()] * 60),
        encoded(noise(600, 600), "JPEG", progressive=True, subsampling="4:4:4"),
        encoded(Image.new("CMYK", (64, 64)), "JPEG"),
        encoded(quarters(), "WEBP"),
        encoded(quarters(), "BMP"),
    ],
    ids=["png", "gif", "animated gif", "apng", "tiff", "jpeg", "cmyk", "webp", "bmp"],
)
def test_ordinary_files_are_let_through(data: bytes) -> None:
    """At any place of the cut."""
    for length in range(8, len(data), max(1, len(data) // 50)):
        assert not is_refused(data[:length])
    assert not is_refused(data)

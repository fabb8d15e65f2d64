"""Libjpeg-turbo's own decoder: the pixels of Pillow, scales by eighths, and Pillow for each file that is not plain."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from imaging_pictures import noise
from PIL import Image, ImageChops, ImageStat
from PIL.JpegImagePlugin import JpegImageFile

from dream.imaging import Limits, process_file, turbo
from dream.imaging.decode import decode, open_image


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format="JPEG", **options)
    return out.getvalue()


def opened(data: bytes) -> JpegImageFile:
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, JpegImageFile)
    return image


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_all_pixels_are_those_of_pillow(subsampling: str, progressive: bool) -> None:
    data = jpeg(noise(333, 201), subsampling=subsampling, progressive=progressive)
    pixels = turbo.decode(opened(data), turbo.FULL)
    assert pixels is not None
    assert pixels.tobytes() == opened(data).convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_for_pillow(mode: str) -> None:
    assert turbo.decode(opened(jpeg(noise(64, 64).convert(mode))), turbo.FULL) is None


def test_a_file_that_makes_the_decoder_warn_is_for_pillow_which_rejects_or_shows_it() -> None:
    data = jpeg(noise(640, 480))
    assert turbo.decode(opened(data[: len(data) // 2]), turbo.FULL) is None
    filled = data[:-2] + b"\0" * 40 + data[-2:]  # bytes behind the last pixel
    image = open_image(io.BytesIO(filled), Limits())
    assert decode(image, Limits()).image.size == (640, 480)


@pytest.mark.parametrize(
    ("size", "max_edge_px", "decoded"),
    [
        ((640, 480), 640, (640, 480)),  # fits as it is
        ((640, 480), 600, (480, 360)),  # 6/8
        ((1280, 960), 600, (480, 360)),  # 3/8
        ((1280, 960), 640, (640, 480)),  # 1/2
        ((1284, 964), 600, (642, 482)),  # 3/8 would leave half a pixel over: 1/2, to be reduced
    ],
)
def test_the_scale_that_needs_no_reduction_is_found(
    size: tuple[int, int], max_edge_px: int, decoded: tuple[int, int]
) -> None:
    limits = Limits(max_edge_px=max_edge_px)
    assert decode(open_image(io.BytesIO(jpeg(noise(*size))), limits), limits).image.size == decoded


def test_pixels_at_three_eighths_are_the_picture_reduced() -> None:
    smooth = noise(64, 48).resize((1280, 960), Image.Resampling.BICUBIC)
    pixels = turbo.decode(opened(jpeg(smooth, quality=95)), 3)
    assert pixels is not None
    difference = ImageChops.difference(pixels, smooth.resize((480, 360), Image.Resampling.LANCZOS))
    assert max(ImageStat.Stat(difference).mean) < 2


def test_a_photo_that_exceeds_its_budget_is_reduced_once(tmp_path: Path) -> None:
    """The forecast of bytes from a few rows is near enough: the file uses most of the budget."""
    source, budget = tmp_path / "source", 200_000
    grain = noise(1600, 1200).reduce(2).resize((1600, 1200), Image.Resampling.BICUBIC)
    source.write_bytes(jpeg(grain, quality=95))
    processed = process_file(source, tmp_path / "target", Limits(max_bytes=budget, max_edge_px=1500))
    assert 0.8 * budget < processed.size_bytes <= budget

"""A variant that is made alone, later than its picture: as the picture's own run would have made it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dream.imaging import Limits, Processed, VariantSpec, process_file, variant_path
from dream.variants import FULL
from tests import gain_maps
from tests.pictures import noise
from tests.unit.imaging.moving import BLUE, RED, Part, apng, gif

LIMITS = Limits(max_edge_px=1600)


def alone(
    data: bytes, text: str, folder: Path, focus: tuple[float, float] | None = None, edge_px: int = 1600
) -> tuple[Processed, Image.Image]:
    """The variant, with the picture in its file."""
    (source := folder / "source").write_bytes(data)
    found = process_file(source, folder / "target", LIMITS.making(VariantSpec.parse(text), edge_px, focus))
    with Image.open(folder / "target") as image:
        image.load()
        return found, image


def turned(data: bytes, orientation: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("text", ["card:200x100:cover", "thumb:120", "hero:300x:webp:60", "wide:x90:avif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_it_is_the_one_that_an_upload_makes(tmp_path: Path, text: str, orientation: int) -> None:
    data = turned(noise(800, 500), orientation)
    (tmp_path / "source").write_bytes(data)
    spec = VariantSpec.parse(text)
    whole = process_file(tmp_path / "source", tmp_path / "whole", LIMITS.wanting([spec]).around((0.2, 0.7)))
    [eager] = whole.variants
    found, image = alone(data, text, tmp_path, (0.2, 0.7))
    assert (found.width_px, found.height_px, found.content_type) == (
        eager.width_px,
        eager.height_px,
        eager.content_type,
    )
    assert image.size == (found.width_px, found.height_px)
    assert found.size_bytes == (tmp_path / "target").stat().st_size
    assert found.size_bytes == pytest.approx(variant_path(tmp_path / "whole", spec.name).stat().st_size, rel=0.1)


def test_it_is_no_larger_than_the_stored_picture_though_the_original_is(tmp_path: Path) -> None:
    found, _ = alone(noise(1200, 900), f"{FULL}:640x480:webp", tmp_path, edge_px=640)
    assert (found.width_px, found.height_px) == (640, 480)
    found, _ = alone(noise(1200, 900), "huge:2000", tmp_path, edge_px=640)
    assert (found.width_px, found.height_px) == (640, 480)


def test_a_picture_of_one_pixel_has_one(tmp_path: Path) -> None:
    found, image = alone(noise(1, 1), f"{FULL}:16:webp", tmp_path, edge_px=1)
    assert (found.width_px, found.height_px) == image.size == (1, 1)


@pytest.mark.parametrize(
    ("text", "loses"),
    [(f"{FULL}:1600x1200:avif", True), ("wide:800x:webp", True), ("card:400:avif", False), ("wide:800x:jpeg", False)],
)
def test_it_says_whether_hdr_is_lost(tmp_path: Path, text: str, loses: bool) -> None:
    """Small pictures have none, and a JPEG keeps it."""
    found, _ = alone(gain_maps.photo().file(), text, tmp_path)
    assert found.loses_hdr is loses
    if text == "wide:800x:jpeg":
        assert gain_maps.read((tmp_path / "target").read_bytes()) is not None


def test_it_says_whether_motion_is_lost(tmp_path: Path) -> None:
    """A still is the variant of an animation in any case, but no stand-in for the animation itself."""
    for moving in (gif(Part(RED), Part(BLUE)), apng(Part(RED), Part(BLUE))):
        assert alone(moving, f"{FULL}:40:avif", tmp_path)[0].loses_motion
        assert not alone(moving, "card:20:avif", tmp_path)[0].loses_motion
        stills = LIMITS.making(VariantSpec.parse(f"{FULL}:40:avif"), 1600, None)
        assert process_file(
            tmp_path / "source", tmp_path / "target", replace(stills, output_format="jpeg")
        ).loses_motion


def test_a_document_of_pages_has_no_motion_to_lose(tmp_path: Path) -> None:
    """It is stored as its first page."""
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    pages[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=pages[1:])
    assert not alone(file.getvalue(), f"{FULL}:40:avif", tmp_path)[0].loses_motion

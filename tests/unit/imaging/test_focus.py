"""The found focal point: near the subject, the same each time, and from every kind of picture."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from imaging_pictures import encoded, noise, quarters
from PIL import Image, ImageDraw, ImageFilter
from test_crop import made

from dream.imaging.crop import Point
from dream.imaging.focus import found_focus

PLACES = [(0.25, 0.3), (0.75, 0.3), (0.3, 0.7), (0.7, 0.65), (0.5, 0.35)]
#: Tones of skin from pale to dark.
SKINS = [(241, 194, 160), (198, 134, 100), (141, 85, 50), (92, 54, 36)]


def ground(width: int, height: int) -> Image.Image:
    """Grass under a sky, out of focus."""
    image = Image.new("RGB", (width, height), (150, 180, 215))
    image.paste((80, 120, 60), (0, height * 3 // 5, width, height))
    grain = Image.frombytes("RGB", (width, height), random.Random(width).randbytes(3 * width * height))
    return Image.blend(image.filter(ImageFilter.GaussianBlur(6)), grain, 0.08)


def with_disc(image: Image.Image, at: Point, colour: tuple[int, int, int], share: float = 0.12) -> Image.Image:
    radius, x, y = share * min(image.size), at[0] * image.width, at[1] * image.height
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def face(width: int, height: int, at: Point, skin: tuple[int, int, int]) -> Image.Image:
    """A head with eyes and a mouth, and a grey body below it."""
    image = ground(width, height)
    pen, unit, x, y = ImageDraw.Draw(image), min(width, height) * 0.12, at[0] * width, at[1] * height
    pen.rectangle((x - 1.6 * unit, y + 1.2 * unit, x + 1.6 * unit, height), fill=(70, 75, 85))
    pen.ellipse((x - unit, y - 1.3 * unit, x + unit, y + 1.3 * unit), fill=skin)
    for side in (-0.4, 0.4):
        pen.ellipse(
            (x + side * unit - 2, y - 0.3 * unit - 1, x + side * unit + 2, y - 0.3 * unit + 1), fill=(40, 30, 30)
        )
    pen.rectangle((x - 0.4 * unit, y + 0.6 * unit, x + 0.4 * unit, y + 0.7 * unit), fill=(150, 60, 60))
    return image


def distance(one: Point, other: Point) -> float:
    return math.dist(one, other)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("size", [(360, 240), (240, 360), (480, 180)])
def test_a_face_of_any_skin_is_found(size: tuple[int, int], skin: tuple[int, int, int], at: Point) -> None:
    found = found_focus(face(*size, at, skin))
    assert distance(found, at) < 0.17
    assert distance(found, at) <= max(0.1, distance((0.5, 0.5), at))


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("colour", [(220, 30, 40), (250, 250, 250), (10, 10, 10), (40, 60, 220)])
def test_a_thing_that_stands_out_is_found(at: Point, colour: tuple[int, int, int]) -> None:
    assert distance(found_focus(with_disc(ground(360, 240), at, colour)), at) < 0.16


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_page_is_found(at: Point, ink: int) -> None:
    page = Image.new("RGBA", (900, 600), (0, 0, 0, 0))
    with_disc(page, at, (ink, ink, ink, 255))  # type: ignore[arg-type]
    assert distance(found_focus(page), at) < 0.13


@pytest.mark.parametrize("at", PLACES)
def test_a_grey_picture_has_a_focal_point(at: Point) -> None:
    assert distance(found_focus(with_disc(ground(360, 240), at, (20, 20, 20)).convert("L")), at) < 0.16


def test_a_picture_without_a_subject_has_the_middle() -> None:
    assert found_focus(Image.new("RGB", (1000, 700), (128, 128, 128))) == (0.5, 0.5)
    assert found_focus(Image.new("RGBA", (10, 10), (0, 0, 0, 0))) == (0.5, 0.5)
    x, y = found_focus(noise(300, 210))
    assert abs(x - 0.5) < 0.12
    assert abs(y - 0.45) < 0.12


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 700), (900, 1), (5, 5), (64, 3), (1000, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_tiny_and_extreme_pictures_have_a_focal_point_inside(size: tuple[int, int], mode: str) -> None:
    for share in found_focus(noise(*size).convert(mode)):
        assert 0 <= share <= 1


def test_the_same_pixels_have_the_same_point_and_mirrored_ones_the_mirrored() -> None:
    image = with_disc(ground(360, 240), (0.3, 0.4), (200, 40, 40))
    x, y = found_focus(image)
    assert found_focus(image.copy()) == (x, y)
    mirrored_x, mirrored_y = found_focus(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert mirrored_x == pytest.approx(1 - x, abs=0.01)
    assert mirrored_y == pytest.approx(y, abs=0.01)


def test_crops_keep_the_found_point_unless_one_is_given(tmp_path: Path) -> None:
    data = encoded(with_disc(ground(1600, 400), (0.75, 0.5), (220, 30, 40)), "JPEG", quality=95)
    processed, [(_, square)] = made(tmp_path, data, "a:200:cover")
    assert distance(processed.found_focus, (0.75, 0.5)) < 0.1
    assert red_share(square) > 0.02
    given, [(_, square)] = made(tmp_path, data, "a:200:cover", focus=(0.1, 0.5))
    assert given.found_focus == processed.found_focus
    assert red_share(square) == 0


def red_share(image: Image.Image) -> float:
    counted = image.convert("RGB").resize((50, 50)).getcolors(2500) or []
    return sum(count for count, (red, green, _) in counted if red > 2 * green + 40) / 2500


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_format_gives_nearly_the_same_point(tmp_path: Path, kind: str) -> None:
    image = with_disc(ground(700, 500), (0.3, 0.6), (220, 30, 40))
    processed, _ = made(tmp_path, encoded(image, kind))
    assert distance(processed.found_focus, found_focus(image)) < 0.03


def test_quarters_of_one_strength_give_a_point_between_them() -> None:
    x, y = found_focus(quarters(900, 600))
    assert 0.2 < x < 0.8
    assert 0.2 < y < 0.8

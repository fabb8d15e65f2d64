"""Placeholders are ThumbHashes: read by the format's own rules, they look like the picture; so does its colour."""

from __future__ import annotations

import base64

import pytest
from imaging_pictures import BLUE, RED, YELLOW, is_near, quarters
from PIL import Image

from dream.imaging.placeholder import dominant_colour, placeholder


def average(text: str) -> tuple[int, int, int]:
    """The average colour in the header of a ThumbHash."""
    head = int.from_bytes(base64.b64decode(text)[:3], "little")
    light, yellow, red = (head & 63) / 63, (head >> 6 & 63) / 31.5 - 1, (head >> 12 & 63) / 31.5 - 1
    blue = light - 2 / 3 * yellow
    r = (3 * light - blue + red) / 2
    return tuple(round(255 * min(1, max(0, part))) for part in (r, r - red, blue))  # type: ignore[return-value]


@pytest.mark.parametrize("colour", [RED, BLUE, YELLOW, (0, 0, 0), (255, 255, 255), (128, 128, 128)])
def test_the_average_colour_is_there(colour: tuple[int, int, int]) -> None:
    assert is_near(average(placeholder(Image.new("RGB", (300, 200), colour))), colour, 10)


def test_alpha_is_marked_and_does_not_darken() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((*RED, 255), (0, 0, 32, 64))
    text = placeholder(clear)
    assert base64.b64decode(text)[2] & 0x80
    assert is_near(average(text), RED, 14)
    assert not base64.b64decode(placeholder(quarters()))[2] & 0x80


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (4000, 2), (33, 32), (640, 480)])
def test_it_is_short_whatever_the_shape(size: tuple[int, int]) -> None:
    for mode in ("L", "RGB", "RGBA"):
        assert 10 <= len(placeholder(Image.new(mode, size))) <= 36


def test_wide_and_tall_are_told_apart() -> None:
    wide, tall = (base64.b64decode(placeholder(quarters(*size))) for size in ((200, 100), (100, 200)))
    assert wide[4] & 0x80
    assert not tall[4] & 0x80


def test_a_known_picture_has_a_known_hash() -> None:
    """Held on all versions of Python, so that stored placeholders keep their meaning."""
    assert placeholder(quarters(32, 32)) == "XBkGXxaCiobAaIiIiKiGiIiGCKiOj+kI"
    assert placeholder(Image.new("RGB", (33, 57), (40, 40, 40))) == "CggCBAAAAAAAAAAAAAAAAAAAAA=="


@pytest.mark.parametrize("colour", [(200, 30, 40), (0, 0, 0), (12, 120, 240)])
def test_the_dominant_colour_is_that_of_most_pixels(colour: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (90, 90), (250, 250, 10))
    image.paste(colour, (0, 0, 90, 60))
    found = bytes.fromhex(dominant_colour(image)[1:])
    assert all(abs(a - b) <= 8 for a, b in zip(found, colour, strict=True))


def test_what_is_transparent_has_no_colour() -> None:
    image = Image.new("RGBA", (60, 60), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 60, 10))
    assert dominant_colour(image) == "#0000ff"
    assert dominant_colour(Image.new("L", (40, 40), 128)) == "#808080"

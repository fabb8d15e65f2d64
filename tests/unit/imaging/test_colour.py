"""Colours come out as sRGB, and modes of every kind as they look."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from imaging_pictures import RED, encoded, is_near, pixel, png, png_chunk, quarters, run
from PIL import Image, ImageCms
from profiles import DISPLAY_P3, rgb_profile

from dream.imaging.colour import to_srgb

WIDE = rgb_profile(DISPLAY_P3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_wide_gamut_picture_is_converted_and_loses_its_profile(tmp_path: Path, kind: str) -> None:
    """The same numbers mean a stronger red in Display P3, so their sRGB has more red and less green and blue."""
    picture = Image.new("RGB", (64, 64), (200, 80, 80))
    _, out = run(tmp_path, encoded(picture, kind, icc_profile=WIDE))
    assert is_near(pixel(out, 0.5, 0.5), (216, 71, 76), 6)
    assert "icc_profile" not in out.info


def test_colours_convert_and_transparency_stays(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (200, 80, 80, 128))
    processed, out = run(tmp_path, encoded(picture, "PNG", icc_profile=WIDE))
    assert processed.extension == "webp"
    assert is_near(pixel(out, 0.5, 0.5), (216, 71, 76, 128), 8)
    assert "icc_profile" not in out.info


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, out = run(tmp_path, encoded(quarters(), "PNG", icc_profile=profile))
    assert is_near(pixel(out, 0.2, 0.2), RED, 6)


@pytest.mark.parametrize("profile", [b"rubbish", WIDE[:200], bytes(500)])
def test_a_broken_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    _, out = run(tmp_path, encoded(quarters(), "JPEG", icc_profile=profile))
    assert is_near(pixel(out, 0.2, 0.2), RED)


def test_a_profile_for_another_kind_of_picture_is_ignored() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert is_near(pixel(to_srgb(cmyk, (WIDE,)), 0.5, 0.5), (255, 0, 0))


def test_a_grey_picture_with_a_colour_profile_stays_grey(tmp_path: Path) -> None:
    data = encoded(Image.new("L", (64, 64), 100), "JPEG", icc_profile=WIDE)
    _, out = run(tmp_path, data)
    assert out.mode == "L"
    assert abs(pixel(out, 0.5, 0.5)[0] - 100) < 6


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_untagged_cmyk_is_not_a_negative(
    tmp_path: Path, kind: str, ink: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    _, out = run(tmp_path, encoded(Image.new("CMYK", (64, 64), ink), kind))
    assert is_near(pixel(out, 0.5, 0.5), colour, 16)


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    _, out = run(tmp_path, encoded(Image.new("LAB", (64, 64), (128, 128, 128)), "TIFF"))
    red, green, blue, _ = pixel(out, 0.5, 0.5)
    assert max(red, green, blue) - min(red, green, blue) < 12
    assert 90 < green < 150


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + b"".join(struct.pack(">H", x * 1024) for x in range(64)) for _ in range(64))
    _, out = run(tmp_path, png(64, 64, 16, 0, rows))
    for share in (0.1, 0.5, 0.9):
        assert abs(pixel(out, share, 0.5)[0] - share * 252) < 8


def test_16_bit_colour_keeps_its_colours(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 220 << 8, 40 << 8, 40 << 8) * 32
    _, out = run(tmp_path, png(32, 32, 16, 2, row * 32))
    assert is_near(pixel(out, 0.5, 0.5), RED, 6)


def test_the_transparent_colour_of_a_16_bit_png_is_found(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0x1212, 0x3434, 0x5656) * 16 + struct.pack(">HHH", 0xF000, 0, 0) * 16
    key = png_chunk(b"tRNS", struct.pack(">HHH", 0x1212, 0x3434, 0x5656))
    _, out = run(tmp_path, png(32, 32, 16, 2, row * 32, key))
    assert pixel(out, 0.2, 0.5)[3] == 0
    assert pixel(out, 0.8, 0.5)[3] == 255


@pytest.mark.parametrize(("value", "grey"), [(0.5, 128), (200.0, 200), (32768.0, 128)])
def test_floating_point_tiffs_are_scaled_by_what_they_hold(tmp_path: Path, value: float, grey: int) -> None:
    _, out = run(tmp_path, encoded(Image.new("F", (16, 16), value), "TIFF"))
    assert abs(pixel(out, 0.5, 0.5)[0] - grey) < 4


def test_black_and_white_has_greys_when_reduced(tmp_path: Path) -> None:
    picture = Image.new("1", (256, 256))
    picture.putdata([(x + y) % 2 * 255 for y in range(256) for x in range(256)])
    _, out = run(tmp_path, encoded(picture, "PNG"), max_edge_px=64)
    assert 110 < pixel(out, 0.5, 0.5)[0] < 145

"""Transparency is kept, and never turns black."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from imaging_pictures import RED, encoded, is_near, noise, pixel, quarters, run
from PIL import Image


def half_transparent() -> Image.Image:
    """Opaque red at the left, and at the right black that nobody should see."""
    picture = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
    picture.paste((*RED, 255), (0, 0, 64, 64))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_transparency_is_kept(tmp_path: Path, kind: str) -> None:
    processed, out = run(tmp_path, encoded(half_transparent(), kind))
    assert (processed.content_type, processed.extension) == ("image/webp", "webp")
    assert out.format == "WEBP"
    assert is_near(pixel(out, 0.2, 0.5), (*RED, 255))
    assert pixel(out, 0.8, 0.5)[3] == 0


def test_hidden_colours_do_not_bleed_into_edges_when_reduced(tmp_path: Path) -> None:
    """A pixel that is half red and half hidden black is red at half opacity."""
    _, out = run(tmp_path, encoded(half_transparent().resize((512, 256)), "PNG"), max_edge_px=65)
    edge = [pixel(out, x / out.width, 0.5) for x in range(out.width)]
    assert any(20 < colour[3] < 235 for colour in edge)
    assert all(is_near(colour[:3], RED, 40) for colour in edge if colour[3] > 60)


def test_a_palette_with_transparency_keeps_it(tmp_path: Path) -> None:
    picture = quarters().quantize(4)
    red = picture.getpixel((0, 0))
    processed, out = run(tmp_path, encoded(picture, "PNG", transparency=red))
    assert processed.extension == "webp"
    assert pixel(out, 0.2, 0.2)[3] == 0
    assert pixel(out, 0.8, 0.8)[3] == 255


def test_an_opaque_palette_stays_opaque(tmp_path: Path) -> None:
    processed, out = run(tmp_path, encoded(quarters().quantize(4), "GIF"))
    assert (processed.content_type, processed.extension) == ("image/webp", "webp")
    assert out.mode == "RGB"
    assert pixel(out, 0.2, 0.2) == (*RED, 255)


def test_grey_with_alpha_keeps_it(tmp_path: Path) -> None:
    picture = Image.new("LA", (64, 64), (90, 0))
    picture.paste((90, 255), (0, 0, 32, 64))
    _, out = run(tmp_path, encoded(picture, "PNG"))
    assert is_near(pixel(out, 0.2, 0.5), (90, 90, 90, 255))
    assert pixel(out, 0.8, 0.5)[3] == 0


def test_a_transparent_grey_is_kept(tmp_path: Path) -> None:
    picture = Image.new("L", (64, 64), 7)
    picture.paste(200, (0, 0, 32, 64))
    _, out = run(tmp_path, encoded(picture, "PNG", transparency=7))
    assert pixel(out, 0.2, 0.5)[3] == 255
    assert pixel(out, 0.8, 0.5)[3] == 0


def test_alpha_that_hides_nothing_costs_nothing(tmp_path: Path) -> None:
    processed, _ = run(tmp_path, encoded(noise(160, 96).convert("RGBA"), "PNG"))
    assert processed.extension == "jpg"


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        _, out = run(tmp_path, encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert is_near(pixel(out, 0.5, 0.5), RED)


def tiff_with_alpha(photometric: int, samples: tuple[int, ...], extra: int) -> bytes:
    """A TIFF of 32 × 32 pixels, its left half of these samples and its right half of nothing."""
    count = len(samples)
    pixels = (bytes(samples) * 16 + bytes(count) * 16) * 32
    depths_at = 8 + 2 + 12 * 11 + 4
    tags = (
        *((256, 4, 1, 32), (257, 4, 1, 32), (258, 3, count, depths_at if count > 2 else 0x80008), (259, 3, 1, 1)),
        *((262, 3, 1, photometric), (273, 4, 1, depths_at + 8), (277, 3, 1, count), (278, 4, 1, 32)),
        *((279, 4, 1, len(pixels)), (284, 3, 1, 1), (338, 3, 1, extra)),
    )
    directory = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + directory + bytes(4) + b"\x08\0" * 4 + pixels


@pytest.mark.parametrize(
    ("photometric", "samples", "extra", "colour"),
    [
        (2, (100, 50, 20, 128), 2, (100, 50, 20, 128)),
        (2, (100, 50, 20, 128), 1, (199, 100, 40, 128)),
        (1, (100, 128), 2, (100, 100, 100, 128)),
        (1, (100, 128), 1, (199, 199, 199, 128)),
    ],
)
def test_alpha_of_a_tiff(
    tmp_path: Path, photometric: int, samples: tuple[int, ...], extra: int, colour: tuple[int, ...]
) -> None:
    """Colours may be multiplied by their alpha (associated, 1) or not (2)."""
    _, out = run(tmp_path, tiff_with_alpha(photometric, samples, extra))
    assert is_near(pixel(out, 0.2, 0.5), colour, 3)
    assert pixel(out, 0.8, 0.5)[3] == 0


@pytest.mark.parametrize(("mask", "alpha"), [(0xFF000000, 128), (0, 255)])
def test_alpha_of_a_bmp(tmp_path: Path, mask: int, alpha: int) -> None:
    pixels = bytes((50, 100, 200, 128)) * 256
    masks = (0xFF0000, 0xFF00, 0xFF, mask)
    header = struct.pack("<IiiHHI20x4I52x", 108, 16, 16, 1, 32, 3, *masks)
    data = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels
    _, out = run(tmp_path, data)
    assert is_near(pixel(out, 0.5, 0.5), (200, 100, 50, alpha), 3)

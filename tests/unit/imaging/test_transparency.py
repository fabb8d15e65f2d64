"""Transparency is kept, and never turns black."""

from __future__ import annotations

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
    """Where half a pixel is red and half is hidden black, it is red at half opacity."""
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

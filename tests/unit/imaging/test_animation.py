"""Animations stay animations: as WebP, within the budget, with their timing, and within caps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from imaging_pictures import BLUE, GREEN, RED, encoded, is_near, noise, pixel, quarters, run
from PIL import Image, ImageSequence

from dream.errors import ImageRejected
from dream.imaging import Limits, VariantSpec, process_file, variant_path

COLOURS = (RED, GREEN, BLUE)


def animation(kind: str, frames: list[Image.Image] | None = None, **options: Any) -> bytes:
    first, *rest = frames or [Image.new("RGB", (120, 80), colour) for colour in COLOURS]
    defaults = {"duration": [100, 250, 400], "loop": 0}
    return encoded(first, kind, save_all=True, append_images=rest, **{**defaults, **options})


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_and_their_timing_are_kept(tmp_path: Path, kind: str) -> None:
    processed, out = run(tmp_path, animation(kind))
    assert processed.content_type == "image/webp"
    frames = [(frame.copy(), frame.info["duration"]) for frame in ImageSequence.Iterator(out)]
    assert [duration_ms for _, duration_ms in frames] == [100, 250, 400]
    for (frame, _), colour in zip(frames, COLOURS, strict=True):
        assert is_near(pixel(frame, 0.5, 0.5), colour)
    assert out.info["loop"] == 0


@pytest.mark.parametrize(("kind", "loop", "plays"), [("GIF", None, 1), ("GIF", 2, 3), ("PNG", 2, 2), ("WEBP", 2, 2)])
def test_it_is_played_as_often(tmp_path: Path, kind: str, loop: int | None, plays: int) -> None:
    _, out = run(tmp_path, animation(kind, loop=loop))
    assert out.info["loop"] == plays


def test_transparency_is_kept_in_every_frame(tmp_path: Path) -> None:
    frames = []
    for left in (0, 40, 80):
        frame = Image.new("RGBA", (120, 80))
        frame.paste(RED, (left, 0, left + 40, 80))
        frames.append(frame)
    _, out = run(tmp_path, animation("GIF", frames, disposal=2))
    for number, frame in enumerate(ImageSequence.Iterator(out)):
        alphas = [pixel(frame, (0.5 + at) / 3, 0.5)[3] for at in range(3)]
        assert alphas == [255 * (at == number) for at in range(3)]


def test_it_is_reduced_to_the_longest_edge_and_the_budget(tmp_path: Path) -> None:
    data = animation("WEBP", [noise(300, 200, sigma=60) for _ in range(3)], quality=100)
    _, out = run(tmp_path, data, max_edge_px=150)
    assert out.size == (150, 100)
    processed, out = run(tmp_path, data, max_bytes=15_000)
    assert 8_000 < processed.size_bytes <= 15_000
    assert out.n_frames == 3  # type: ignore[attr-defined]


def test_its_variants_are_stills(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(animation("GIF"))
    processed = process_file(source, target, Limits(variants=(VariantSpec.within("thumb", 30),)))
    assert processed.variants[0].content_type == "image/jpeg"
    assert is_near(pixel(Image.open(io.BytesIO(variant_path(target, "thumb").read_bytes())), 0.5, 0.5), RED)


def test_where_jpeg_is_wanted_the_first_frame_is_kept(tmp_path: Path) -> None:
    processed, out = run(tmp_path, animation("GIF"), output_format="jpeg", max_frames=1)
    assert processed.content_type == "image/jpeg"
    assert is_near(pixel(out, 0.5, 0.5), RED)


def test_the_still_beside_an_animated_png_is_no_frame(tmp_path: Path) -> None:
    frames = [quarters(120, 80), *(Image.new("RGB", (120, 80), colour) for colour in COLOURS)]
    _, out = run(tmp_path, animation("PNG", frames, default_image=True))
    assert out.n_frames == 3  # type: ignore[attr-defined]
    assert is_near(pixel(out, 0.1, 0.1), RED)


def test_pages_are_no_frames(tmp_path: Path) -> None:
    processed, out = run(tmp_path, encoded(quarters(), "TIFF", save_all=True, append_images=[quarters()]))
    assert not getattr(out, "is_animated", False)
    assert (processed.width_px, processed.height_px) == quarters().size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_frames": 2}, "more than 2 frames"), ({"max_animation_pixels": 28_000}, "0.0288 million")],
)
def test_caps_are_clear(tmp_path: Path, kind: str, limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageRejected, match=reason):
        run(tmp_path, animation(kind), **limits)

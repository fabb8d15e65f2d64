"""The perceptual hash: copies of a picture have nearly the same bits, other pictures have others."""

from __future__ import annotations

import io

import pytest
from imaging_pictures import noise
from PIL import Image, ImageEnhance

from dream.imaging.perceptual_hash import perceptual_hash
from dream.imaging.transform import swatch


def scene(seed: int) -> Image.Image:
    """A picture of soft shapes: what noise leaves after a reduction to a few pixels."""
    return Image.frombytes("RGB", (8, 6), noise_bytes(seed)).resize((900, 600), Image.Resampling.BICUBIC)


def noise_bytes(seed: int) -> bytes:
    return bytes((at * 7919 + seed * 104729) ** 2 % 251 for at in range(8 * 6 * 3))


def distance(one: Image.Image, other: Image.Image) -> int:
    first, second = (int(perceptual_hash(swatch(image)), 16) for image in (one, other))
    return (first ^ second).bit_count()


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_has_nearly_the_same_hash(seed: int) -> None:
    image = scene(seed)
    small = image.resize((300, 200), Image.Resampling.LANCZOS)
    for copy in (small, recompressed(small), ImageEnhance.Brightness(image).enhance(0.9), image.convert("RGBA")):
        assert distance(image, copy) <= 6


def test_other_pictures_have_other_hashes() -> None:
    scenes = [scene(seed) for seed in range(5)]
    others = [distance(one, other) for at, one in enumerate(scenes) for other in scenes[:at]]
    assert min(others) >= 16
    assert min(distance(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for image in scenes) >= 16


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (4000, 2), (33, 32), (640, 480)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_each_picture_has_64_bits(mode: str, size: tuple[int, int]) -> None:
    for image in (Image.new(mode, size), noise(*size).convert(mode)):
        text = perceptual_hash(swatch(image))
        assert len(text) == 16
        assert 0 <= int(text, 16) < 2**64


def test_a_known_picture_has_a_known_hash() -> None:
    """Stored hashes keep their meaning only if this one never changes."""
    assert perceptual_hash(swatch(scene(1))) == "7818cccdb03236dc"

"""Resizing in strips: the same pixels, in less memory."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from dream.imaging import transform
from tests.pictures import noise


@pytest.mark.parametrize("box", [None, (100.5, 60.25, 2800.0, 1900.75)], ids=["whole", "part"])
def test_a_large_picture_in_strips_has_the_pixels_of_one_in_one_piece(
    box: tuple[float, float, float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strips of rows leave no seams, also if the last strip is short."""
    large = Image.open(io.BytesIO(noise(2881, 1921)))
    in_strips = transform.resize(large, (1920, 1281), box)
    monkeypatch.setattr(transform, "_MOST_HALF_RESIZED_BYTES", 2**40)
    assert transform.resize(large, (1920, 1281), box).tobytes() == in_strips.tobytes()

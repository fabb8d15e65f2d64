"""Pictures of noise, which no codec makes small."""

from __future__ import annotations

import io

from PIL import Image

__all__ = ["noise"]


def noise(width_px: int = 160, height_px: int = 120, *, form: str = "JPEG") -> bytes:
    """A picture's file in that format."""
    file = io.BytesIO()
    Image.effect_noise((width_px, height_px), 60).convert("RGB").save(file, form, quality=80)
    return file.getvalue()

"""Opponents of `dream.imaging`: the documented algorithm, plain Pillow, and libvips if it is installed."""

from __future__ import annotations

import io
import math
import os

from PIL import Image

__all__ = ["decoded", "documented", "documented_to", "has_vips", "thumbnail_to", "vips_to"]


def decoded(data: bytes) -> Image.Image:
    """Decode all pixels by Pillow: the least work of every full decoder."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def documented(data: bytes, max_bytes: int = 2**20) -> bytes:
    """The documented algorithm: decode all pixels, scale by √(limit / size), save at 85 × limit / size."""
    if len(data) <= max_bytes:
        return data
    image = Image.open(io.BytesIO(data))
    share = max_bytes / len(data)
    scale = math.sqrt(share)
    smaller = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    return _jpeg(smaller, max(1, int(85 * share)))


def documented_to(data: bytes, edge_px: int, quality: int) -> bytes:
    """The same way to a given longest edge and quality."""
    image = Image.open(io.BytesIO(data))
    scale = edge_px / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return _jpeg(image.resize(size, Image.Resampling.LANCZOS), quality)


def thumbnail_to(data: bytes, edge_px: int, quality: int) -> bytes:
    """Pillow's `thumbnail` unchanged, with its own reduction while decoding."""
    image = Image.open(io.BytesIO(data))
    image.thumbnail((edge_px, edge_px), Image.Resampling.LANCZOS)
    return _jpeg(image, quality)


def has_vips() -> bool:
    """Whether pyvips and its library can be loaded; if so, set it to one thread."""
    os.environ["VIPS_CONCURRENCY"] = "1"
    try:
        import pyvips
    except (ImportError, OSError):
        return False
    return bool(pyvips)


def vips_to(data: bytes, edge_px: int, quality: int) -> bytes:
    """libvips' `thumbnail`, which also reduces while decoding."""
    import pyvips

    pyvips.cache_set_max(0)
    smaller = pyvips.Image.thumbnail_buffer(data, edge_px, height=edge_px, size="down", no_rotate=True)
    out = smaller.jpegsave_buffer(Q=quality, keep="none")
    assert isinstance(out, bytes)
    return out


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, format="JPEG", quality=quality)
    return out.getvalue()

"""Smaller versions of a picture, from the pixels that were decoded once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from dream.imaging import Variant, variant_path
from dream.imaging.content import Content, content_of_pixels
from dream.imaging.encode import encode
from dream.imaging.limits import Limits
from dream.imaging.resize import resize

__all__ = ["make_variants"]


def make_variants(image: Image.Image, target: Path, limits: Limits, content: Content) -> tuple[Variant, ...]:
    """Write each variant that is wanted beside `target`; none is larger than the picture, nor than its byte budget.

    Parameters:
      image: in mode L, RGB or RGBA, upright.
      content: photo or drawing; each variant of a drawing is judged again, since it may not look drawn when reduced.

    Raises:
      ImageRejected: the byte budget is too small for any picture.
      OSError: a file could not be written.
    """
    made = []
    for name, edge_px in limits.variants:
        wanted = replace(limits, max_edge_px=edge_px)
        small = resize(image, wanted.fit(image.size))
        shows = content_of_pixels(small) if content.is_drawn else content
        encoded = encode(small, variant_path(target, name), wanted, shows)
        made.append(Variant(name=name, **asdict(encoded)))
    return tuple(made)

"""Smaller versions of a picture, and the colour that stands for it, from the pixels that were decoded once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from dream.imaging import Variant, variant_path
from dream.imaging.encode import encode, kind_for
from dream.imaging.limits import Limits
from dream.imaging.resize import resize

__all__ = ["dominant_colour", "make_variants"]

_COLOURS = 8


def make_variants(image: Image.Image, target: Path, limits: Limits) -> tuple[Variant, ...]:
    """Write each variant that is wanted beside `target`; none is larger than the picture, nor than its byte budget.

    Parameters:
      image: in mode L, RGB or RGBA, upright.

    Raises:
      ImageRejected: the byte budget is too small for any picture.
      OSError: a file could not be written.
    """
    kind = kind_for(image, limits.output_format)
    made = []
    for name, edge_px in limits.variants:
        wanted = replace(limits, max_edge_px=edge_px)
        encoded = encode(resize(image, wanted.fit(image.size)), variant_path(target, name), wanted, kind)
        made.append(Variant(name=name, **asdict(encoded)))
    return tuple(made)


def dominant_colour(image: Image.Image) -> str:
    """The colour that most of the picture has, as `#rrggbb`; what is transparent has none.

    Colours are cut to eight by median cut; the one with the most pixels counts.

    Parameters:
      image: in mode L, RGB or RGBA, and small.
    """
    pixels = image.convert("RGBA").tobytes()
    seen = b"".join(pixels[at : at + 3] for at in range(0, len(pixels), 4) if pixels[at + 3] >= 128)
    if not seen:
        return "#ffffff"
    strip = Image.frombytes("RGB", (len(seen) // 3, 1), seen).quantize(_COLOURS)
    counted: list[tuple[int, int]] = strip.getcolors() or []  # type: ignore[assignment]
    index = max(counted)[1]
    palette = strip.getpalette() or []
    return "#" + bytes(palette[3 * index : 3 * index + 3]).hex()

"""Cut and reduce a picture to one of its variants, around its focal point.

┌──────────────────┐
│      ┌───────┐   │   `cover`: the largest part of the box's shape, with the focal point
│      │   ×   │   │   as near to its middle as the edges allow
│      └───────┘   │
└──────────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from PIL import Image

from dream.imaging.transform import resize
from dream.variants import VariantSpec

__all__ = ["Box", "Point", "box_for", "cut", "least_edge_px"]

#: `x` and `y` from the top left of the upright picture, each a share of its side from 0 to 1.
Point = tuple[float, float]
#: Left, top, right and bottom of a part of a picture, in its pixels, which may be fractions.
Box = tuple[float, float, float, float]


def cut(image: Image.Image, size: tuple[int, int], spec: VariantSpec, focus: Point) -> Image.Image:
    """The pixels of a variant.

    Parameters:
      image: the upright picture, which may be reduced already.
      size: its size in pixels before that.
      focus: the point that a crop keeps.
    """
    wanted = spec.size_for(size)
    if spec.fit == "fit":
        return resize(image, wanted)
    box = box_for(image.size, wanted, focus)
    if (box[2] - box[0], box[3] - box[1]) == wanted:
        return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]
    return resize(image, wanted, box)


def box_for(size: tuple[int, int], shape: tuple[int, int], focus: Point) -> Box:
    """The largest part of that shape in a picture of `size` pixels, as near to `focus` as the edges allow.

    A part that needs no reduction has whole pixels, which stay as they are.
    """
    scale = max(share / side for share, side in zip(shape, size, strict=True))
    (left, right), (top, bottom) = (
        _placed(side, min(side, share / scale), at, is_whole=scale == 1)
        for side, share, at in zip(size, shape, focus, strict=True)
    )
    return left, top, right, bottom


def _placed(side: int, span: float, at: float, *, is_whole: bool) -> tuple[float, float]:
    """The ends of `span` pixels of a side, around the share `at` of it."""
    begin = min(max(0.0, at * side - span / 2), side - span)
    if is_whole:
        begin = round(begin)
    return begin, min(float(side), begin + span)


def least_edge_px(size: tuple[int, int], specs: Iterable[VariantSpec]) -> int:
    """The longest edge to which a picture of `size` pixels may be reduced before these variants are made of it."""
    edges_px = [1]
    for spec in specs:
        wanted = spec.size_for(size)
        scale = max(want / side for want, side in zip(wanted, size, strict=True))
        edges_px.append(max(wanted) if spec.fit == "fit" else math.ceil(max(size) * scale))
    return min(max(size), max(edges_px))

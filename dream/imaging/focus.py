"""Find the focal point of a picture: the point that crops keep if its owner has given none.

Edges, skin tones and colours unlike the mean are added up on a small copy, and weighed by their distance from a point
above the middle, where photographers place their subjects. The focal point is the middle of the strongest place.

No model and no random number: the same pixels give the same point. Pillow's filters do it in 8 bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from functools import cache, reduce
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter, ImageStat

from dream.imaging.crop import Point
from dream.imaging.transform import swatch

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["FOCUS_EDGE_PX", "found_focus"]

#: The longest edge of the small copy.
FOCUS_EDGE_PX = 64
#: The middle of skin's Cb and Cr, and their spread. Brightness, in which pale and dark skin differ, does not count.
_SKIN_CB, _SKIN_CR, _SKIN_SPREAD = 108, 152, 13
#: The shares of edges, unlike colours and skin in the sum.
_EDGES, _COLOURS, _SKIN = 0.31, 0.23, 0.46
#: Brightness counts less than colour.
_BRIGHTNESS = 0.6
#: The most likely place, and the distance at which the weight is 61%, as shares of the sides.
_LIKELY, _SPREAD = (0.5, 0.45), 0.4
#: The size of a place, as a share of the shorter side.
_PLACE = 0.4
#: Places weaker than the strongest one count by this power of their share.
_POWER = 16
#: Shares have this many decimals; 64 pixels give no more.
_DECIMALS = 3


def found_focus(image: Image.Image) -> Point:
    """The focal point of an upright picture in mode L, RGB or RGBA; the middle, if nothing in it stands out."""
    small = _on_grey(swatch(image, FOCUS_EDGE_PX))
    brightness, blue, red = small.convert("YCbCr").split()
    skin = ImageChops.multiply(blue.point(_near(_SKIN_CB)), red.point(_near(_SKIN_CR)))
    unlike = [_unlike(brightness, _BRIGHTNESS), _unlike(blue, 1), _unlike(red, 1)]
    seen = (
        _scaled(_edges(brightness), _EDGES),
        _scaled(reduce(ImageChops.add, unlike), _COLOURS),
        skin.filter(ImageFilter.BoxBlur(1.5)).point(_times(_SKIN)),
    )
    weighed = ImageChops.multiply(reduce(ImageChops.add, seen), _likely().resize(small.size))
    place = ImageFilter.BoxBlur(_PLACE * min(small.size) / 2)
    return _middle(_scaled(_scaled(weighed).filter(place).filter(place)))


def _on_grey(image: Image.Image) -> Image.Image:
    """The picture without transparency; both black and white ink stand out."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    page = Image.new("RGB", image.size, "grey")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _edges(channel: Image.Image) -> Image.Image:
    spans = ImageChops.subtract(channel.filter(ImageFilter.MaxFilter(3)), channel.filter(ImageFilter.MinFilter(3)))
    return spans.filter(ImageFilter.GaussianBlur(2))


def _unlike(channel: Image.Image, weight: float) -> Image.Image:
    """The distance of each place from the mean."""
    mean = ImageStat.Stat(channel).mean[0]
    return channel.filter(ImageFilter.BoxBlur(1.5)).point(_table(lambda levels: weight * abs(levels - mean)))


def _scaled(channel: Image.Image, share: float = 1) -> Image.Image:
    """The channel, multiplied so that its highest value is this share of 255."""
    highest: int = channel.getextrema()[1]  # type: ignore[assignment]  # of one channel it is a number
    return channel.point(_times(share * 255 / highest)) if highest else channel


def _table(formula: Callable[[NDArray[numpy.float64]], NDArray[numpy.float64]]) -> list[int]:
    """The value of a formula for each level, as Pillow's `point` takes it."""
    import numpy

    table: list[int] = numpy.minimum(255, numpy.rint(formula(numpy.arange(256.0)))).astype(int).tolist()
    return table


def _times(factor: float) -> list[int]:
    return _table(lambda levels: levels * factor)


@cache
def _near(middle: int) -> list[int]:
    return _table(lambda levels: 255 * math.e ** -(((levels - middle) / _SKIN_SPREAD) ** 2))


@cache
def _likely() -> Image.Image:
    """The weight of each place: the chance that the subject is there."""
    across, down = (
        [math.exp(-((((at + 0.5) / FOCUS_EDGE_PX - middle) / _SPREAD) ** 2) / 2) for at in range(FOCUS_EDGE_PX)]
        for middle in _LIKELY
    )
    shares = bytes(round(255 * x * y) for y in down for x in across)
    return Image.frombytes("L", (FOCUS_EDGE_PX, FOCUS_EDGE_PX), shares)


@cache
def _strength() -> list[int]:
    return _table(lambda levels: 255 * (levels / 255) ** _POWER)


def _middle(places: Image.Image) -> Point:
    """The mean of the strongest places, as shares of width and height."""
    strong = places.point(_strength()).convert("F")
    sums = (
        struct.unpack(f"{max(size)}f", strong.resize(size, Image.Resampling.BOX).tobytes())
        for size in ((strong.width, 1), (1, strong.height))
    )
    x, y = map(_mean, sums)
    return x, y


def _mean(weights: Iterable[float]) -> float:
    parts = list(weights)
    total = math.fsum(parts)
    if not total:
        return 0.5
    return round(math.fsum((at + 0.5) * part for at, part in enumerate(parts)) / total / len(parts), _DECIMALS)

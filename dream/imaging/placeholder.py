"""The placeholder of a picture until it has loaded: a blurred picture in 25 bytes, and the dominant colour.

The format is ThumbHash (Evan Wallace, https://evanw.github.io/thumbhash/): the lowest frequencies of brightness, of two
colour differences and, if there is one, of alpha, in 4 bits each behind a header of averages and scales.

Both are made of the picture's `swatch`, which may be given in its place.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from PIL import Image

from dream.imaging.transform import swatch

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    _Plane = NDArray[numpy.float64]

__all__ = ["dominant_colour", "placeholder"]

#: The number of colours to which a picture is reduced; the most frequent one is dominant.
_COLOURS = 8
_DECIMALS = 12

_Channel = tuple[float, list[float], float]


def placeholder(image: Image.Image) -> str:
    """The ThumbHash of a picture in mode L, RGB or RGBA, as at most 36 characters of base64."""
    return base64.b64encode(_hash(swatch(image).convert("RGBA"))).decode("ascii")


def dominant_colour(image: Image.Image) -> str:
    """The most frequent colour, as `#rrggbb`; transparent parts do not count.

    Median cut reduces the colours to eight; the one with the most pixels counts.

    Parameters:
      image: in mode L, RGB or RGBA.
    """
    import numpy

    pixels = numpy.asarray(swatch(image).convert("RGBA"))
    seen = pixels[pixels[..., 3] >= 128][:, :3]
    if not len(seen):
        return "#ffffff"
    strip = Image.frombytes("RGB", (len(seen), 1), seen.tobytes()).quantize(_COLOURS)
    counted: list[tuple[int, int]] = strip.getcolors() or []  # type: ignore[assignment]
    index = max(counted)[1]
    palette = strip.getpalette() or []
    return "#" + bytes(palette[3 * index : 3 * index + 3]).hex()


def _hash(image: Image.Image) -> bytes:
    width, height = image.size
    luminance, yellow_blue, red_green, alpha = _planes(image)
    has_alpha = bool(alpha.min() < 1)
    most = 5 if has_alpha else 7
    across = max(1, _round(most * width / max(width, height)))
    down = max(1, _round(most * height / max(width, height)))
    light = _frequencies(luminance, max(3, across), max(3, down))
    yellow = _frequencies(yellow_blue, 3, 3)
    red = _frequencies(red_green, 3, 3)
    is_wide = width > height
    head = _round(63 * light[0]) | _round(31.5 + 31.5 * yellow[0]) << 6 | _round(31.5 + 31.5 * red[0]) << 12
    head |= _round(31 * light[2]) << 18 | has_alpha << 23
    shape = (down if is_wide else across) | _round(63 * yellow[2]) << 3 | _round(63 * red[2]) << 9 | is_wide << 15
    out = bytearray(head.to_bytes(3, "little") + shape.to_bytes(2, "little"))
    channels = [light, yellow, red]
    if has_alpha:
        opacity = _frequencies(alpha, 5, 5)
        out.append(_round(15 * opacity[0]) | _round(15 * opacity[2]) << 4)
        channels.append(opacity)
    nibbles = [_round(15 * value) for channel in channels for value in channel[1]]
    nibbles += [0] * (len(nibbles) % 2)
    out += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return bytes(out)


def _planes(image: Image.Image) -> list[_Plane]:
    """Brightness, yellow–blue, red–green and alpha of each pixel, laid over the picture's average colour."""
    import numpy

    pixels = numpy.asarray(image) / 255
    colours, alpha = pixels[..., :3], pixels[..., 3]
    average = (colours * alpha[..., None]).sum(axis=(0, 1)) / (alpha.sum() or 1.0)
    red, green, blue = numpy.moveaxis(average + (colours - average) * alpha[..., None], -1, 0)
    return [(red + green + blue) / 3, (red + green) / 2 - blue, red - green, alpha]


def _frequencies(plane: _Plane, across: int, down: int) -> _Channel:
    """A cosine transform's corner: the mean, the other terms brought to 0–1, and the scale that did it."""
    # Rounded, because a term that is zero but for the last bit could fall on either side of a step.
    terms = (_waves(down, plane.shape[0]) @ plane @ _waves(across, plane.shape[1]).T / plane.size).round(_DECIMALS)
    first, *rest = (float(terms[y, x]) for y in range(down) for x in range(across) if x * down < across * (down - y))
    scale = max(map(abs, rest))
    return first, [0.5 + 0.5 * term / scale if scale else 0.0 for term in rest], scale


def _waves(terms: int, length: int) -> _Plane:
    """Cosine waves, one a row."""
    import numpy

    waves: _Plane = numpy.cos(numpy.outer(numpy.arange(terms), numpy.arange(length) + 0.5) * (numpy.pi / length))
    return waves


def _round(value: float) -> int:
    return int(value + 0.5)

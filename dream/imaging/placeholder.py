"""The placeholder of a picture until it has loaded: a blurred picture in 25 bytes, and the dominant colour.

The format is ThumbHash (Evan Wallace, https://evanw.github.io/thumbhash/): the lowest frequencies of brightness, of two
colour differences and, if there is one, of alpha, in 4 bits each behind a header of averages and scales.

Both are made of the picture's `swatch`, which may be given in its place.
"""

from __future__ import annotations

import base64
from math import cos, pi

from PIL import Image

from dream.imaging.transform import swatch

__all__ = ["dominant_colour", "placeholder"]

#: The number of colours to which a picture is reduced; the most frequent one is dominant.
_COLOURS = 8

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
    pixels = swatch(image).convert("RGBA").tobytes()
    seen = b"".join(pixels[at : at + 3] for at in range(0, len(pixels), 4) if pixels[at + 3] >= 128)
    if not seen:
        return "#ffffff"
    strip = Image.frombytes("RGB", (len(seen) // 3, 1), seen).quantize(_COLOURS)
    counted: list[tuple[int, int]] = strip.getcolors() or []  # type: ignore[assignment]
    index = max(counted)[1]
    palette = strip.getpalette() or []
    return "#" + bytes(palette[3 * index : 3 * index + 3]).hex()


def _hash(image: Image.Image) -> bytes:
    width, height = image.size
    luminance, yellow_blue, red_green, alpha = _planes(image)
    has_alpha = min(alpha) < 1
    most = 5 if has_alpha else 7
    across = max(1, _round(most * width / max(width, height)))
    down = max(1, _round(most * height / max(width, height)))
    light = _frequencies(luminance, image.size, max(3, across), max(3, down))
    yellow = _frequencies(yellow_blue, image.size, 3, 3)
    red = _frequencies(red_green, image.size, 3, 3)
    is_wide = width > height
    head = _round(63 * light[0]) | _round(31.5 + 31.5 * yellow[0]) << 6 | _round(31.5 + 31.5 * red[0]) << 12
    head |= _round(31 * light[2]) << 18 | has_alpha << 23
    shape = (down if is_wide else across) | _round(63 * yellow[2]) << 3 | _round(63 * red[2]) << 9 | is_wide << 15
    out = bytearray(head.to_bytes(3, "little") + shape.to_bytes(2, "little"))
    channels = [light, yellow, red]
    if has_alpha:
        opacity = _frequencies(alpha, image.size, 5, 5)
        out.append(_round(15 * opacity[0]) | _round(15 * opacity[2]) << 4)
        channels.append(opacity)
    nibbles = [_round(15 * value) for channel in channels for value in channel[1]]
    nibbles += [0] * (len(nibbles) % 2)
    out += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return bytes(out)


def _planes(image: Image.Image) -> tuple[list[float], list[float], list[float], list[float]]:
    """Brightness, yellow–blue, red–green and alpha of each pixel, laid over the picture's average colour."""
    reds, greens, blues, alphas = ([value / 255 for value in image.getchannel(name).tobytes()] for name in "RGBA")
    weight = sum(alphas) or 1.0
    laid: list[list[float]] = []
    for channel in (reds, greens, blues):
        average = sum(value * alpha for value, alpha in zip(channel, alphas, strict=True)) / weight
        laid.append([average + (value - average) * a for value, a in zip(channel, alphas, strict=True)])
    pixels = list(zip(*laid, strict=True))
    return (
        [(red + green + blue) / 3 for red, green, blue in pixels],
        [(red + green) / 2 - blue for red, green, blue in pixels],
        [red - green for red, green, _ in pixels],
        alphas,
    )


def _frequencies(plane: list[float], size: tuple[int, int], across: int, down: int) -> _Channel:
    """A cosine transform's corner: the mean, the other terms brought to 0–1, and the scale that did it."""
    width, height = size
    waves_x = [[cos(pi / width * term * (x + 0.5)) for x in range(width)] for term in range(across)]
    waves_y = [[cos(pi / height * term * (y + 0.5)) for y in range(height)] for term in range(down)]
    rows = [plane[y * width : (y + 1) * width] for y in range(height)]
    sums = [[sum(map(float.__mul__, row, wave)) for row in rows] for wave in waves_x]
    terms = [
        sum(map(float.__mul__, sums[term_x], waves_y[term_y])) / (width * height)
        for term_y in range(down)
        for term_x in range(across)
        if term_x * down < across * (down - term_y)
    ]
    scale = max(map(abs, terms[1:]))
    rest = [0.5 + 0.5 * term / scale if scale else 0.0 for term in terms[1:]]
    return terms[0], rest, scale


def _round(value: float) -> int:
    return int(value + 0.5)

"""Turn the pixels of a file into the pixels of the result: sRGB, upright, and no larger than wanted.

The result of `prepare` is in mode L, RGB or RGBA and carries no metadata. The order is for speed: reduce first, so that
colours are converted and pixels turned on the smaller picture.

The filter of `resize` is Lanczos (three lobes) as Pillow has it, computed by cykooz-resizer several times faster. In
mode RGBA colours are weighed by their alpha, so that transparent pixels lend none.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image, ImageChops

from dream.imaging.colour import to_srgb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dream.imaging.decode import Decoded

__all__ = [
    "SWATCH_EDGE_PX",
    "WHITE_IS_ZERO",
    "lay_on_white",
    "plain",
    "prepare",
    "resize",
    "resize_rows",
    "swatch",
    "upright",
]

#: The key in `info` of a picture of which 0 is white: Pillow inverts such pictures of up to 8 bits, and no deeper ones.
WHITE_IS_ZERO = "white_is_zero"

#: Modes that cykooz-resizer knows, of those that reach this module.
_FAST_MODES = frozenset({"L", "RGB", "RGBA", "CMYK"})
_LANCZOS = ResizeAlg.convolution(FilterType.lanczos3)
_LOBES = 3
_BOX = ResizeAlg.convolution(FilterType.box)
#: The longest edge of a swatch: enough for a picture's colours.
SWATCH_EDGE_PX = 32
#: The rows of a strip, after its reduction.
_STRIP_PX = 216
#: An opaque picture whose half-resized copy takes more bytes is resized in strips: 3 ms slower, and in half the memory.
_MOST_HALF_RESIZED_BYTES = 14_000_000
#: The largest memory for the half-resized picture that is kept for the next one.
_MOST_KEPT_BYTES = 32 * 2**20


class _ThreadResizer(threading.local):
    """A thread's resizer, which keeps its working memory.

    Otherwise the C library would return the memory to the kernel and get it anew for each photo; page faults would take
    a quarter of the time.
    """

    def __init__(self) -> None:
        self.resizer = Resizer()


_thread_resizer = _ThreadResizer()


def resize(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """The picture at `size` pixels.

    Parameters:
      box: left, top, right and bottom of the part that is wanted, in pixels; by default the whole picture.
    """
    if image.size == size and box is None:
        return image
    if image.mode not in _FAST_MODES:
        return image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    left, top, right, bottom = box or (0.0, 0.0, float(image.width), float(image.height))
    if image.mode != "RGB" or 4 * size[0] * (bottom - top) <= _MOST_HALF_RESIZED_BYTES:
        return _resized(image, size, _LANCZOS, box)
    out, scale = Image.new("RGB", size, None), (bottom - top) / size[1]
    for first, last in _strips(size[1]):
        part = (left, top + first * scale, right, min(bottom, top + last * scale))
        out.paste(_resized(image, (size[0], last - first), _LANCZOS, part), (0, first))
    return out


def resize_rows(rows: memoryview, mode: str, size: tuple[int, int], wanted: tuple[int, int]) -> Image.Image:
    """The picture at `wanted` pixels, as `resize` makes it, from packed rows.

    Strips of the rows stay in the processor's cache, and the whole picture is never in four bytes a pixel.

    Parameters:
      rows: the bytes of all rows, without padding.
      mode: L or RGB.
      size: of the rows, in pixels.
    """
    out = Image.new(mode, wanted, None)
    width, height = size
    row_bytes, scale = len(rows) // height, height / wanted[1]
    margin = math.ceil(_LOBES * max(1.0, scale)) + 1
    for top, bottom in _strips(wanted[1]):
        first, last = max(0, math.floor(top * scale) - margin), min(height, math.ceil(bottom * scale) + margin)
        part = rows[first * row_bytes : last * row_bytes]
        # Pillow takes any buffer.
        strip = Image.frombuffer(mode, (width, last - first), part, "raw", mode, 0, 1)  # type: ignore[arg-type]
        # By a rounding error the last strip may end below the last row, and cykooz-resizer refuses that.
        box = (0.0, top * scale - first, float(width), min(float(height), bottom * scale) - first)
        out.paste(_resized(strip, (wanted[0], bottom - top), _LANCZOS, box), (0, top))
    return out


def _strips(height: int) -> Iterator[tuple[int, int]]:
    """The first row of each strip of a result, and the row behind its last one."""
    for top in range(0, height, _STRIP_PX):
        yield top, min(top + _STRIP_PX, height)


def swatch(image: Image.Image, edge_px: int = SWATCH_EDGE_PX) -> Image.Image:
    """A few pixels that stand for the picture, each the mean of its area; a small picture stays as it is.

    Parameters:
      image: in mode L, RGB or RGBA.
      edge_px: the longest edge of the few pixels.
    """
    longest = max(image.size)
    if longest <= edge_px:
        return image
    width, height = (max(1, round(side * edge_px / longest)) for side in image.size)
    return _resized(image, (width, height), _BOX)


def _resized(
    image: Image.Image,
    size: tuple[int, int],
    how: ResizeAlg,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    image.load()
    out = Image.new(image.mode, size, None)  # its pixels are not set twice
    left, top, right, bottom = box or (0, 0, *image.size)
    half_resized_bytes = 4 * size[0] * math.ceil(bottom - top)
    resizer = _thread_resizer.resizer if half_resized_bytes <= _MOST_KEPT_BYTES else Resizer()
    part = CropBox(left, top, right - left, bottom - top) if box else None
    resizer.resize_pil(image, out, ResizeOptions(how, use_alpha=image.mode == "RGBA", crop_box=part))
    return out


#: Modes that resize and convert well as they are.
_PLAIN_MODES = frozenset({"L", "LA", "RGB", "RGBA", "CMYK", "LAB"})
#: Modes that convert to one plain mode only; `La` has its colours multiplied by alpha.
_CONVERTED_MODES = {"1": "L", "La": "LA"}
#: Modes in which one colour may stand for transparency.
_KEYED_MODES = frozenset({"1", "L", "I;16", "P", "RGB"})
#: Modes with one number a pixel that is wider than a byte, and the one to widen them to.
_DEEP_MODES = {"I": "I", "I;16": "I", "I;16L": "I", "I;16B": "I", "I;16N": "I", "F": "F"}


def plain(image: Image.Image) -> Image.Image:
    """The picture in a plain mode: palettes and transparent colours resolved, deep pixels brought to 8 bits."""
    if "transparency" in image.info and image.mode in _KEYED_MODES:
        return _resolve_transparency(image)
    if image.mode in _DEEP_MODES:
        return _to_8_bits(image)
    if image.mode in _PLAIN_MODES:
        return image
    if image.mode in _CONVERTED_MODES:
        return image.convert(_CONVERTED_MODES[image.mode])
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _resolve_transparency(image: Image.Image) -> Image.Image:
    """Turn the one transparent colour, or the palette's alphas, into an alpha channel."""
    if image.mode not in _DEEP_MODES:
        return image.convert("RGBA")
    import numpy

    is_other = numpy.asarray(image) != image.info["transparency"]
    grey = _to_8_bits(image)
    grey.putalpha(Image.fromarray(is_other.astype(numpy.uint8) * 255))
    return grey


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey to 0–255. Integers are of 16 bits unless they say otherwise; floats may also run to 1 or 255."""
    mode = _DEEP_MODES[image.mode]
    wide = image.convert(mode)
    highest = max(float(bound) for bound in wide.getextrema())  # type: ignore[arg-type]
    whites = (65_535.0, 4_294_967_295.0) if mode == "I" else (1.0, 255.0, 65_535.0)
    white = next((white for white in whites if highest <= white), highest)
    grey = wide.point(lambda value: value * (255.0 / white) + 0.5).convert("L")  # which cuts the fraction off
    return ImageChops.invert(grey) if WHITE_IS_ZERO in image.info else grey


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def prepare(decoded: Decoded) -> Image.Image:
    """Reduce, convert to sRGB and turn upright; transparency that hides nothing is dropped. `decoded` is used up."""
    image = plain(decoded.image)
    image = _drop_full_opacity(image)
    image = resize(image, decoded.fitted_px)
    if image is not decoded.image:
        decoded.image.close()  # its memory is for what follows
    image = to_srgb(image, decoded.colours)
    image = upright(image, decoded.orientation)
    image.info = {}
    return image


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as Exif's orientation says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def lay_on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency, as on a white page."""
    if image.mode != "RGBA":
        return image
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _drop_full_opacity(image: Image.Image) -> Image.Image:
    if image.mode not in {"LA", "RGBA"} or image.getchannel("A").getextrema() != (255, 255):
        return image
    return image.convert(image.mode[:-1])

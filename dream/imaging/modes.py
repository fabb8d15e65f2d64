"""Modes: every picture in one that can be resized and converted, with its transparency in a channel of its own."""

from __future__ import annotations

from PIL import Image

__all__ = ["plain"]

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
    return wide.point(lambda value: value * (255.0 / white) + 0.5).convert("L")  # which cuts what follows the point

"""From pixels as a file stores them to pixels as everybody sees them: sRGB, upright, and no larger than asked.

The result is in mode L, RGB or RGBA and carries no metadata. The order is for speed: reduce first, so that colours are
converted and pixels turned on the smaller picture.
"""

from __future__ import annotations

from PIL import Image

from dream.imaging.colour import to_srgb
from dream.imaging.decode import Decoded
from dream.imaging.resize import resize

__all__ = ["lay_on_white", "prepare"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Modes that resize and convert well as they are.
_PLAIN_MODES = frozenset({"L", "LA", "RGB", "RGBA", "CMYK", "LAB"})
#: Modes that convert to one plain mode only; `La` has its colours multiplied by alpha.
_CONVERTED_MODES = {"1": "L", "La": "LA"}
#: Modes in which one colour may stand for transparency.
_KEYED_MODES = frozenset({"1", "L", "P", "RGB"})
#: Modes with one number a pixel that is wider than a byte, and the one to widen them to.
_DEEP_MODES = {"I": "I", "I;16": "I", "I;16L": "I", "I;16B": "I", "I;16N": "I", "F": "F"}


def prepare(decoded: Decoded) -> Image.Image:
    """Reduce, convert to sRGB and turn upright; transparency that hides nothing is dropped. `decoded` is used up."""
    image = _unpack(decoded.image)
    image = _drop_full_opacity(image)
    image = resize(image, decoded.fitted_px)
    if image is not decoded.image:
        decoded.image.close()  # its memory is for what follows
    image = to_srgb(image, decoded.profile)
    if decoded.orientation in _TURNS:
        image = image.transpose(_TURNS[decoded.orientation])
    image.info = {}
    return image


def lay_on_white(image: Image.Image) -> Image.Image:
    """The picture without transparency: what is seen of it on a white page."""
    if image.mode != "RGBA":
        return image
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _unpack(image: Image.Image) -> Image.Image:
    """The picture in a plain mode: palettes and transparent colours resolved, deep pixels brought to 8 bits."""
    if image.mode in _DEEP_MODES:
        return _to_8_bits(image)
    if "transparency" in image.info and image.mode in _KEYED_MODES:
        return _resolve_transparency(image)
    if image.mode in _PLAIN_MODES:
        return image
    if image.mode in _CONVERTED_MODES:
        return image.convert(_CONVERTED_MODES[image.mode])
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _resolve_transparency(image: Image.Image) -> Image.Image:
    """Turn the one transparent colour, or the palette's alphas, into an alpha channel."""
    key = image.info["transparency"]
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # A PNG of 16 bits a channel: Pillow reduces the pixels to 8 bits, but not the colour that is transparent.
        image.info["transparency"] = tuple(part >> 8 for part in key)
    return image.convert("RGBA")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey to 0–255. Integers are of 16 bits unless they say otherwise; floats may also run to 1 or 255."""
    mode = _DEEP_MODES[image.mode]
    wide = image.convert(mode)
    highest = max(float(bound) for bound in wide.getextrema())  # type: ignore[arg-type]
    whites = (65_535.0, 4_294_967_295.0) if mode == "I" else (1.0, 255.0, 65_535.0)
    white = next((white for white in whites if highest <= white), highest)
    return wide.point(lambda value: value * (255.0 / white) + 0.0).convert("L")


def _drop_full_opacity(image: Image.Image) -> Image.Image:
    if image.mode not in {"LA", "RGBA"} or image.getchannel("A").getextrema() != (255, 255):
        return image
    return image.convert(image.mode[:-1])

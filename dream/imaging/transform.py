"""From pixels as a file stores them to pixels as everybody sees them: sRGB, upright, and no larger than asked.

The result is in mode L, RGB or RGBA and carries no metadata. The order is for speed: reduce first, so that colours are
converted and pixels turned on the smaller picture.
"""

from __future__ import annotations

from PIL import Image

from dream.imaging.colour import to_srgb
from dream.imaging.decode import Decoded
from dream.imaging.modes import plain
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


def prepare(decoded: Decoded) -> Image.Image:
    """Reduce, convert to sRGB and turn upright; transparency that hides nothing is dropped. `decoded` is used up."""
    image = plain(decoded.image)
    image = _drop_full_opacity(image)
    image = resize(image, decoded.fitted_px)
    if image is not decoded.image:
        decoded.image.close()  # its memory is for what follows
    image = to_srgb(image, decoded.colours)
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


def _drop_full_opacity(image: Image.Image) -> Image.Image:
    if image.mode not in {"LA", "RGBA"} or image.getchannel("A").getextrema() != (255, 255):
        return image
    return image.convert(image.mode[:-1])

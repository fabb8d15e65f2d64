"""Forecast the bytes of a photo's file from a few rows, so that one reduction brings it to about the size that fits.

Two reductions would take longer and lose sharpness, and a whole picture would be encoded in vain.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

from dream.imaging.budget import EDGE_EXPONENT
from dream.imaging.transform import resize

__all__ = ["affordable_px"]

_Save = Callable[[Image.Image, BinaryIO], None]

#: A picture with fewer pixels than this for each byte of its budget hardly exceeds the budget.
_PIXELS_A_BYTE = 2.2
#: A picture is reduced further if its forecast is above this share of the budget, to this share.
_EXCEEDS, _AIM = 1.05, 0.95
#: Bands of a large picture, each of so many rows after its reduction.
_BANDS, _BAND_PX = 5, 32


def affordable_px(
    image: Image.Image, fitted_px: tuple[int, int], floor_px: float, save: _Save, max_bytes: int
) -> tuple[int, int]:
    """The size, at most `fitted_px`, to which to reduce a decoded photo so that its file fits.

    Parameters:
      image: at least as large as `fitted_px`, in mode L or RGB.
      floor_px: the longest edge is not reduced below this.
      save: encodes a picture at the best quality.
    """
    width, height = fitted_px
    if width * height < _PIXELS_A_BYTE * max_bytes or height < 2 * _BANDS * _BAND_PX:
        return fitted_px
    band_px = round(_BAND_PX * image.height / height)
    step = image.height / _BANDS
    tops = [round(step * (band + 0.5) - band_px / 2) for band in range(_BANDS)]
    bands = [resize(image.crop((0, top, image.width, top + band_px)), (width, _BAND_PX)) for top in tops]
    expected = _bytes_of(bands, save) * height / (_BANDS * _BAND_PX)
    if expected <= _EXCEEDS * max_bytes:
        return fitted_px
    scale = math.exp(-math.log(expected / (_AIM * max_bytes)) / EDGE_EXPONENT)
    scale = max(scale, min(1.0, floor_px / max(fitted_px)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _bytes_of(rows: list[Image.Image], save: _Save) -> int:
    """The bytes of a file that has these rows one below the other."""
    sample = Image.new(rows[0].mode, (rows[0].width, sum(each.height for each in rows)), None)
    top = 0
    for each in rows:
        sample.paste(each, (0, top))
        top += each.height
    out = io.BytesIO()
    save(sample, out)
    return out.tell()

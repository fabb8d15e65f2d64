"""The perceptual hash of a picture: a copy in another size or quality has nearly the same bits.

It is a difference hash (dHash): 9 × 8 grey areas, and a bit for each pair of neighbours in a row. Two pictures probably
show the same if at most about 10 of the 64 bits differ.
"""

from __future__ import annotations

from itertools import pairwise

from PIL import Image

from dream.imaging.transform import lay_on_white

__all__ = ["perceptual_hash"]

_ACROSS, _DOWN = 9, 8


def perceptual_hash(small: Image.Image) -> str:
    """The hash as 16 hexadecimal digits, row by row from the top left.

    Parameters:
      small: the picture's swatch, in mode L, RGB or RGBA.
    """
    grey = lay_on_white(small).convert("L").resize((_ACROSS, _DOWN), Image.Resampling.BOX).tobytes()
    rows = [grey[start : start + _ACROSS] for start in range(0, len(grey), _ACROSS)]
    bits = [left > right for row in rows for left, right in pairwise(row)]
    return f"{int(''.join('01'[bit] for bit in bits), 2):016x}"

"""A file within its byte budget, by search: one try at the best, a fitted guess, seldom one or two more.

Everything that can be given up lies on one ladder: first time, for a tighter encoding; then quality, down to the lowest
that a kind of file allows; then pixels, at that quality. A place on it is the natural logarithm by which bytes are
expected to shrink from the top, so that a guess is a straight line. What is written never exceeds the budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dream.errors import ImageRejected
from dream.imaging.encode import Kind
from dream.imaging.resize import resize

__all__ = ["Encoded", "encode"]

#: A guess aims at this share of the budget, since it may miss.
_AIM = 0.96
#: A try that uses this share of the budget is good enough, and so is the best of so many.
_WELL_USED = 0.88
_MOST_TRIES = 7
#: The least step down the ladder: what a tight encoding saves, and about what one quality does.
_STEP = 0.05
#: Bytes grow with an edge to this power, as measured on photos: somewhat less than pixels do.
_EDGE_EXPONENT = 1.75
#: No picture is cut below this edge: headers alone are larger than the budget then.
_SMALLEST_EDGE_PX = 8


@dataclass(frozen=True)
class Encoded:
    """What was written."""

    content_type: str
    extension: str
    width_px: int
    height_px: int
    size_bytes: int


def encode(image: Image.Image, target: Path, max_bytes: int, kind: Kind) -> Encoded:
    """Write `image` to `target`, in at most `max_bytes`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      image: in mode L, RGB or RGBA, without metadata.

    Raises:
      ImageRejected: no picture is that small.
      OSError: the file could not be written.
    """
    image = kind.admit(image)
    trial, best = target.with_name(f"{target.name}~"), target.with_name(f"{target.name}~~")  # no variant has a ~
    try:
        found = _search(image, trial, best, max_bytes, kind)
        best.replace(target)
    finally:
        trial.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    return Encoded(kind.content_type, kind.extension, *found.rung.size, found.size_bytes)


class _Rung(NamedTuple):
    """What a picture is encoded with."""

    quality: int
    size: tuple[int, int]
    tight: bool


class _Try(NamedTuple):
    """A place on the ladder, what it means, and the bytes it gave."""

    place: float
    rung: _Rung
    size_bytes: int


def _search(image: Image.Image, trial: Path, best: Path, max_bytes: int, kind: Kind) -> _Try:
    """Leave the best file that fits at `best`."""
    fits: _Try | None = None
    exceeds: _Try | None = None
    tries = 0
    while fits is None or (exceeds is not None and fits.size_bytes < _WELL_USED * max_bytes and tries < _MOST_TRIES):
        place = _guess(fits, exceeds, max_bytes)
        rung = _rung(place, image.size, kind)
        if fits is not None and rung == fits.rung:
            break
        if max(rung.size) < min(_SMALLEST_EDGE_PX, max(image.size)):
            raise ImageRejected(f"the picture cannot be stored in {max_bytes} bytes")
        tries += 1
        done = _Try(place, rung, kind.save(resize(image, rung.size), trial, rung.quality, rung.tight))
        if done.size_bytes <= max_bytes:
            fits = done
            trial.replace(best)
        else:
            exceeds = done
            if max(rung.size) <= _SMALLEST_EDGE_PX:
                raise ImageRejected(f"the picture cannot be stored in {max_bytes} bytes")
    return fits


def _guess(fits: _Try | None, exceeds: _Try | None, max_bytes: int) -> float:
    """The next place to try: the top, then on the line through what is known."""
    if exceeds is None:
        return 0.0
    too_much = math.log(exceeds.size_bytes / (_AIM * max_bytes))
    if fits is None:
        return exceeds.place + max(_STEP, too_much)
    share = too_much / math.log(exceeds.size_bytes / fits.size_bytes)
    return exceeds.place + share * (fits.place - exceeds.place)


def _rung(place: float, size: tuple[int, int], kind: Kind) -> _Rung:
    """What is given up at a place of the ladder."""
    bottom = -math.log(kind.lowest_share)  # where quality ends
    below = max(0.0, place - _STEP)
    lost_quality = min(1.0, below / bottom) * (kind.highest_quality - kind.lowest_quality)
    scale = math.exp(min(0.0, bottom - below) / _EDGE_EXPONENT)
    width, height = (max(1, round(side * scale)) for side in size)
    return _Rung(round(kind.highest_quality - lost_quality), (width, height), place > 0)

"""The best file within a byte budget, by search: one try at the best, a fitted guess, seldom one or two more.

Everything that can be given up lies on one ladder: first time, for a tighter encoding; then quality, down to the lowest
that a kind of file allows; then pixels, at that quality. A place on it is the natural logarithm by which bytes are
expected to shrink from the top, so that a guess is a straight line. What is written never exceeds the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dream.errors import ImageRejected

__all__ = ["Found", "Qualities", "Rung", "search"]

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


class Qualities(NamedTuple):
    """What may be given up before pixels are.

    Parameters:
      highest: above it, bytes are spent on what nobody sees.
      lowest: below it, flaws show.
      lowest_share: about the bytes at the lowest quality for each byte at the highest.
    """

    highest: int
    lowest: int
    lowest_share: float


class Rung(NamedTuple):
    """What a picture is encoded with.

    Parameters:
      quality: as the encoder counts it.
      size: pixels.
      tight: whether to take time to spend fewer bytes on the same pixels.
    """

    quality: int
    size: tuple[int, int]
    tight: bool


class Found(NamedTuple):
    """The size of the picture that was written, in pixels, and of its file."""

    size: tuple[int, int]
    size_bytes: int


class _Try(NamedTuple):
    """A place on the ladder, what it means, and the bytes it gave."""

    place: float
    rung: Rung
    size_bytes: int


def search(
    size: tuple[int, int], qualities: Qualities, save: Callable[[Path, Rung], None], target: Path, max_bytes: int
) -> Found:
    """Write the best file that fits to `target`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      size: the picture's, in pixels.
      save: writes the picture to a path, as the rung says.

    Raises:
      ImageRejected: no picture is that small.
      OSError: a file could not be written.
    """
    trial, best = target.with_name(f"{target.name}~"), target.with_name(f"{target.name}~~")  # no variant has a ~
    fits: _Try | None = None
    exceeds: _Try | None = None
    tries = 0
    try:
        while fits is None or (
            exceeds is not None and fits.size_bytes < _WELL_USED * max_bytes and tries < _MOST_TRIES
        ):
            place = _guess(fits, exceeds, max_bytes)
            rung = _rung(place, size, qualities)
            if fits is not None and rung == fits.rung:
                break
            tries += 1
            save(trial, rung)
            done = _Try(place, rung, trial.stat().st_size)
            if done.size_bytes <= max_bytes:
                fits = done
                trial.replace(best)
            else:
                exceeds = done
                if max(rung.size) <= _SMALLEST_EDGE_PX:
                    raise ImageRejected(f"the picture cannot be stored in {max_bytes} bytes")
        best.replace(target)
    finally:
        trial.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    return Found(fits.rung.size, fits.size_bytes)


def _guess(fits: _Try | None, exceeds: _Try | None, max_bytes: int) -> float:
    """The next place to try: the top, then on the line through what is known."""
    if exceeds is None:
        return 0.0
    too_much = math.log(exceeds.size_bytes / (_AIM * max_bytes))
    if fits is None:
        return exceeds.place + max(_STEP, too_much)
    share = too_much / math.log(exceeds.size_bytes / fits.size_bytes)
    return exceeds.place + share * (fits.place - exceeds.place)


def _rung(place: float, size: tuple[int, int], qualities: Qualities) -> Rung:
    """What is given up at a place of the ladder."""
    bottom = -math.log(qualities.lowest_share)  # where quality ends
    below = max(0.0, place - _STEP)
    lost_quality = min(1.0, below / bottom) * (qualities.highest - qualities.lowest)
    scale = math.exp(min(0.0, bottom - below) / _EDGE_EXPONENT)
    width, height = (max(1, round(side * scale)) for side in size)
    return Rung(round(qualities.highest - lost_quality), (width, height), place > 0)

"""The best file within a byte budget, by search: one try at the best, a fitted guess, seldom one or two more.

Everything that can be given up lies on one ladder, from the top:

1. pixels, while the longest edge is above what is asked for at least;
2. quality, down to the lowest that a kind of file allows;
3. pixels, as many as it takes.

A place on it is the natural logarithm by which bytes are expected to shrink from the top, so that a guess is a straight
line. What is written never exceeds the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dream.arguments import size_text
from dream.errors import ImageRejected

__all__ = ["Found", "Qualities", "Rung", "Task", "search"]

#: A guess aims at this share of the budget, since it may miss.
_AIM = 0.97
#: A try that uses this share of the budget is good enough, and so is the best of so many.
_WELL_USED = 0.9
_MOST_TRIES = 7
#: The least step down the ladder.
_STEP = 0.03
#: Bytes grow with an edge to this power, as measured on photos: somewhat less than pixels do.
_EDGE_EXPONENT = 1.75
#: No picture is cut below this edge: headers alone are larger than the budget then.
_SMALLEST_EDGE_PX = 8


class Qualities(NamedTuple):
    """How good a kind of file may be.

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
    """

    quality: int
    size: tuple[int, int]


class Task(NamedTuple):
    """What is to be put into a file.

    Parameters:
      size: the picture's, in pixels.
      floor_px: its longest edge may give way to this before quality does.
      qualities: how good the file may be.
      max_bytes: its budget.
    """

    size: tuple[int, int]
    floor_px: float
    qualities: Qualities
    max_bytes: int


class Found(NamedTuple):
    """The size of the picture that was written, in pixels, its quality, and the size of its file."""

    size: tuple[int, int]
    quality: int
    size_bytes: int


class _Try(NamedTuple):
    """A place on the ladder, what it means, and the bytes it gave."""

    place: float
    rung: Rung
    size_bytes: int


def search(task: Task, save: Callable[[Path, Rung], None], target: Path) -> Found:
    """Write the best file that fits to `target`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      save: writes the picture to a path, as the rung says.

    Raises:
      ImageRejected: no picture is that small.
      OSError: a file could not be written.
    """
    max_bytes = task.max_bytes
    trial, best = target.with_name(f"{target.name}~"), target.with_name(f"{target.name}~~")  # no variant has a ~
    fits: _Try | None = None
    exceeds: _Try | None = None
    tries = 0
    try:
        while fits is None or (exceeds and fits.size_bytes < _WELL_USED * max_bytes and tries < _MOST_TRIES):
            place, rung = _next(fits, exceeds, task)
            if fits is not None and rung == fits.rung:
                break
            tries += 1
            save(trial, rung)
            done = _Try(place, rung, trial.stat().st_size)
            if done.size_bytes <= max_bytes:
                fits = done
                trial.replace(best)
            elif max(done.rung.size) <= _SMALLEST_EDGE_PX:
                raise ImageRejected(f"the picture cannot be stored in {size_text(max_bytes)}")
            else:
                exceeds = done
        best.replace(target)
    finally:
        trial.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    return Found(fits.rung.size, fits.rung.quality, fits.size_bytes)


def _next(fits: _Try | None, exceeds: _Try | None, task: Task) -> tuple[float, Rung]:
    """The place to try next, and its rung: that of what fits, where nothing lies between it and what exceeds."""
    place = _guess(fits, exceeds, task.max_bytes)
    rung = _rung(place, task)
    if fits is not None and exceeds is not None and rung in (fits.rung, exceeds.rung):
        place = (fits.place + exceeds.place) / 2
        rung = _rung(place, task)
        if rung == exceeds.rung:
            return fits.place, fits.rung
    return place, rung


def _guess(fits: _Try | None, exceeds: _Try | None, max_bytes: int) -> float:
    """The next place to try: the top, then on the line through what is known."""
    if exceeds is None:
        return 0.0
    too_much = math.log(exceeds.size_bytes / (_AIM * max_bytes))
    if fits is None:
        return exceeds.place + max(_STEP, too_much)
    share = too_much / math.log(exceeds.size_bytes / fits.size_bytes)
    return exceeds.place + share * (fits.place - exceeds.place)


def _rung(place: float, task: Task) -> Rung:
    """What is given up at a place of the ladder."""
    highest, lowest, lowest_share = task.qualities
    to_floor = _EDGE_EXPONENT * max(0.0, math.log(max(task.size) / task.floor_px))
    cut = min(place, to_floor)
    left = place - cut
    lost_quality = min(1.0, left / -math.log(lowest_share)) * (highest - lowest)
    cut += max(0.0, left + math.log(lowest_share))
    scale = math.exp(-cut / _EDGE_EXPONENT)
    width, height = (max(1, round(side * scale)) for side in task.size)
    return Rung(round(highest - lost_quality), (width, height))

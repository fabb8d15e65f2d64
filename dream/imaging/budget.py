"""Search for the best file within a byte budget: one try at the best, a fitted guess, seldom one or two more.

The search goes down one scale of grades, which give up in this order:

1. pixels, while the longest edge is above the smallest wanted one;
2. quality, down to the lowest that a kind of file allows;
3. pixels, as many as necessary.

A place on it is the natural logarithm by which bytes are expected to shrink from the top, so that a guess is a straight
line. The file never exceeds the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dream.errors import ImageRejected, Reason
from dream.work.text import size_text

__all__ = ["EDGE_EXPONENT", "Bounds", "Found", "Grade", "Qualities", "search"]

#: A guess aims at this share of the budget, since it may miss.
_AIM = 0.97
#: A try that uses this share of the budget is good enough, and so is the best of this many tries.
_WELL_USED = 0.9
_MOST_TRIES = 7
#: The least step down the scale.
_STEP = 0.03
#: The most places on the scale for each unit by which the logarithm of bytes falls.
_STEEPEST = 3.0
#: Bytes grow with an edge to this power, as measured on photos; pixels grow with the power 2.
EDGE_EXPONENT = 1.75
#: No picture is cut below this edge: headers alone are larger than the budget then.
_SMALLEST_EDGE_PX = 8


class Qualities(NamedTuple):
    """The range of qualities for a kind of file.

    Parameters:
      highest: above it, more bytes show no difference.
      lowest: below it, flaws show.
      lowest_share: about the bytes at the lowest quality for each byte at the highest.
      step: the difference between two qualities.
    """

    highest: int
    lowest: int
    lowest_share: float
    step: float = 1


class Grade(NamedTuple):
    """The encoder's parameters for a picture.

    Parameters:
      quality: as the encoder counts it.
      size: pixels.
    """

    quality: float
    size: tuple[int, int]


class Bounds(NamedTuple):
    """The bounds of one search.

    Parameters:
      size: the picture's, in pixels.
      floor_px: its longest edge may give way to this before quality does.
      qualities: how good the file may be.
      max_bytes: the byte budget.
    """

    size: tuple[int, int]
    floor_px: float
    qualities: Qualities
    max_bytes: int


class Found(NamedTuple):
    """The size of the picture that was written, in pixels, its quality, and the size of its file."""

    size: tuple[int, int]
    quality: float
    size_bytes: int


class _Try(NamedTuple):
    """A place on the scale, its grade, and the bytes of the file."""

    place: float
    grade: Grade
    size_bytes: int


def search(bounds: Bounds, save: Callable[[Path, Grade], None], target: Path) -> Found:
    """Write the best file that fits to `target`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      save: writes the picture to a path with the parameters of a grade.

    Raises:
      ImageRejected: even the smallest picture exceeds the budget.
      OSError: a file could not be written.
    """
    max_bytes = bounds.max_bytes
    trial, best = target.with_name(f"{target.name}~"), target.with_name(f"{target.name}~~")  # no variant has a ~
    fits: _Try | None = None
    exceeding: list[_Try] = []
    tries = 0
    try:
        while fits is None or (exceeding and fits.size_bytes < _WELL_USED * max_bytes and tries < _MOST_TRIES):
            place, grade = _next(fits, exceeding, bounds)
            if fits is not None and grade == fits.grade:
                break
            tries += 1
            save(trial, grade)
            done = _Try(place, grade, trial.stat().st_size)
            if done.size_bytes <= max_bytes:
                fits = done
                trial.replace(best)
            elif max(done.grade.size) <= _SMALLEST_EDGE_PX:
                raise ImageRejected.because(Reason.CANNOT_BE_SMALL_ENOUGH, most=size_text(max_bytes))
            else:
                exceeding.append(done)
        best.replace(target)
    finally:
        trial.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    return Found(fits.grade.size, fits.grade.quality, fits.size_bytes)


def _next(fits: _Try | None, exceeding: list[_Try], bounds: Bounds) -> tuple[float, Grade]:
    """The place to try next, and its grade; the grade that fits, if no other is between it and the one that exceeds."""
    place = _guess(fits, exceeding, bounds.max_bytes)
    grade = _grade(place, bounds)
    if fits is not None and grade in (fits.grade, exceeding[-1].grade):
        place = (fits.place + exceeding[-1].place) / 2
        grade = _grade(place, bounds)
        if grade == exceeding[-1].grade:
            return fits.place, fits.grade
    return place, grade


def _guess(fits: _Try | None, exceeding: list[_Try], max_bytes: int) -> float:
    """The next place to try: first the top, then a place on the line through the last two places.

    While all tries exceed, its slope is the mean of the expected one and the one between the last two places.
    """
    if not exceeding:
        return 0.0
    *others, last = exceeding
    too_much = math.log(last.size_bytes / (_AIM * max_bytes))
    if fits is not None:
        return last.place + too_much * _places_for_bytes(last, fits)
    slope = (1 + min(_STEEPEST, _places_for_bytes(others[-1], last))) / 2 if others else 1.0
    return last.place + max(_STEP, too_much * slope)


def _places_for_bytes(first: _Try, second: _Try) -> float:
    """The places on the scale from one try to the other, for each unit by which the logarithm of bytes falls."""
    return (second.place - first.place) / max(1e-6, math.log(first.size_bytes / second.size_bytes))


def _grade(place: float, bounds: Bounds) -> Grade:
    """The grade at a place of the scale."""
    highest, lowest, lowest_share, step = bounds.qualities
    to_floor = EDGE_EXPONENT * max(0.0, math.log(max(bounds.size) / bounds.floor_px))
    cut = min(place, to_floor)
    left = place - cut
    # Encoders' own steps grow with the distance from 100, and the logarithm of bytes falls with the logarithm of steps.
    lost_share = min(1.0, left / -math.log(lowest_share))
    quality = 100 - (100 - highest) * ((100 - lowest) / (100 - highest)) ** lost_share
    cut += max(0.0, left + math.log(lowest_share))
    scale = math.exp(-cut / EDGE_EXPONENT)
    width, height = (max(1, round(side * scale)) for side in bounds.size)
    return Grade(step * round(quality / step), (width, height))

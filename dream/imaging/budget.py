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

__all__ = ["EDGE_EXPONENT", "Found", "Grade", "Qualities", "Task", "search"]

#: A guess aims at this share of the budget, since it may miss.
_AIM = 0.97
#: A try that uses this share of the budget is good enough, and so is the best of this many tries.
_WELL_USED = 0.9
_MOST_TRIES = 7
#: The least step down the scale.
_STEP = 0.03
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
    """

    highest: int
    lowest: int
    lowest_share: float


class Grade(NamedTuple):
    """The encoder's parameters for a picture.

    Parameters:
      quality: as the encoder counts it.
      size: pixels.
    """

    quality: int
    size: tuple[int, int]


class Task(NamedTuple):
    """The input of one encoding.

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
    quality: int
    size_bytes: int


class _Try(NamedTuple):
    """A place on the scale, its grade, and the bytes of the file."""

    place: float
    grade: Grade
    size_bytes: int


def search(task: Task, save: Callable[[Path, Grade], None], target: Path) -> Found:
    """Write the best file that fits to `target`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      save: writes the picture to a path with the parameters of a grade.

    Raises:
      ImageRejected: even the smallest picture exceeds the budget.
      OSError: a file could not be written.
    """
    max_bytes = task.max_bytes
    trial, best = target.with_name(f"{target.name}~"), target.with_name(f"{target.name}~~")  # no variant has a ~
    fits: _Try | None = None
    exceeds: _Try | None = None
    tries = 0
    try:
        while fits is None or (exceeds and fits.size_bytes < _WELL_USED * max_bytes and tries < _MOST_TRIES):
            place, grade = _next(fits, exceeds, task)
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
                exceeds = done
        best.replace(target)
    finally:
        trial.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    return Found(fits.grade.size, fits.grade.quality, fits.size_bytes)


def _next(fits: _Try | None, exceeds: _Try | None, task: Task) -> tuple[float, Grade]:
    """The place to try next, and its grade; the grade that fits, if no other is between it and the one that exceeds."""
    place = _guess(fits, exceeds, task.max_bytes)
    grade = _grade(place, task)
    if fits is not None and exceeds is not None and grade in (fits.grade, exceeds.grade):
        place = (fits.place + exceeds.place) / 2
        grade = _grade(place, task)
        if grade == exceeds.grade:
            return fits.place, fits.grade
    return place, grade


def _guess(fits: _Try | None, exceeds: _Try | None, max_bytes: int) -> float:
    """The next place to try: first the top, then a place on the line through the known places."""
    if exceeds is None:
        return 0.0
    too_much = math.log(exceeds.size_bytes / (_AIM * max_bytes))
    if fits is None:
        return exceeds.place + max(_STEP, too_much)
    share = too_much / math.log(exceeds.size_bytes / fits.size_bytes)
    return exceeds.place + share * (fits.place - exceeds.place)


def _grade(place: float, task: Task) -> Grade:
    """The grade at a place of the scale."""
    highest, lowest, lowest_share = task.qualities
    to_floor = EDGE_EXPONENT * max(0.0, math.log(max(task.size) / task.floor_px))
    cut = min(place, to_floor)
    left = place - cut
    lost_quality = min(1.0, left / -math.log(lowest_share)) * (highest - lowest)
    cut += max(0.0, left + math.log(lowest_share))
    scale = math.exp(-cut / EDGE_EXPONENT)
    width, height = (max(1, round(side * scale)) for side in task.size)
    return Grade(round(highest - lost_quality), (width, height))

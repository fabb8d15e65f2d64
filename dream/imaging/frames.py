"""Compose the frames of a GIF or an animated PNG as browsers do.

Pillow composes frames in the mode of the first one, which may have no transparency. So each frame is opened as a
picture of its own, and all are laid on one canvas, which is transparent where nothing was drawn.

Sources: GIF89a, clause 23; PNG 3rd edition, clause 11.3.6. Chromium decides if they say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from PIL import Image
from PIL.ImageFile import ImageFile

from dream.imaging.damage import rejecting_damage
from dream.imaging.transform import plain

__all__ = ["Disposal", "Frame", "composed"]


class Disposal(Enum):
    """The treatment of a frame's area before the next frame is drawn."""

    KEEP = "keep"
    CLEAR = "clear"
    RESTORE = "restore"


class Frame(NamedTuple):
    """One frame as its file stores it.

    Parameters:
      open: opens it as a picture of its own; nothing is decoded until then.
      left, top: its place on the canvas.
      size: its own, in pixels.
      duration_ms: the time for which it is shown.
      disposal: the treatment of its area afterwards.
      blends: it is laid over the canvas; otherwise it replaces its area, transparency included.
    """

    open: Callable[[], ImageFile]
    left: int
    top: int
    size: tuple[int, int]
    duration_ms: float
    disposal: Disposal
    blends: bool


def composed(size: tuple[int, int], frames: Sequence[Frame]) -> Iterator[Image.Image]:
    """The canvas while each frame is shown, in mode RGBA. The next iteration draws over it.

    Parameters:
      size: the canvas, in pixels; parts of frames beyond it are cut off.

    Raises:
      ImageRejected: a frame is damaged.
      OSError: the file could not be read.
    """
    canvas = Image.new("RGBA", size)
    for frame in frames:
        left, top = frame.left, frame.top
        box = (left, top, min(size[0], left + frame.size[0]), min(size[1], top + frame.size[1]))
        if box[0] >= box[2] or box[1] >= box[3]:
            yield canvas
            continue
        drawn = _drawn(frame, (box[2] - left, box[3] - top))
        before = canvas.crop(box) if frame.disposal is Disposal.RESTORE else None
        if frame.blends:
            canvas.alpha_composite(drawn, (left, top))
        else:
            canvas.paste(drawn, box)
        del drawn  # each copy of a large canvas is 100 MB
        yield canvas
        if frame.disposal is Disposal.CLEAR:
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas.paste(before, box)


def _drawn(frame: Frame, size: tuple[int, int]) -> Image.Image:
    """The frame's pixels in mode RGBA, cut to a size."""
    with rejecting_damage():
        image = frame.open()
        image.load()
    drawn = plain(image)
    drawn = drawn if drawn.mode == "RGBA" else drawn.convert("RGBA")
    return drawn if drawn.size == size else drawn.crop((0, 0, *size))

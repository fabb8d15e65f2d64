"""Animations: each frame goes the way of a picture, and together they become one WebP within the byte budget.

All frames are held at once, so long animations become smaller ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dream.errors import ImageRejected
from dream.imaging.budget import Qualities, Rung, Task, search
from dream.imaging.damage import rejecting_damage
from dream.imaging.decode import Decoded, orientation_of
from dream.imaging.encode import WEBP, Encoded
from dream.imaging.limits import Limits
from dream.imaging.resize import resize
from dream.imaging.transform import prepare

__all__ = ["Animation", "animation_of", "encode_animation"]

#: Pixels of all frames together that are held, 4 bytes each.
_MOST_HELD_PIXELS = 40_000_000
_QUALITIES = Qualities(highest=80, lowest=60, lowest_share=0.6)
#: What browsers make of frames without a duration, or with next to none.
_DEFAULT_DURATION_MS = 100
_SHORTEST_DURATION_MS = 20


@dataclass(frozen=True)
class Animation:
    """Frames as everybody sees them: sRGB, upright, of one size, in mode RGB or RGBA.

    Parameters:
      frames: at least two.
      durations_ms: how long each is shown.
      plays: how often they are, 0 for ever.
    """

    frames: list[Image.Image]
    durations_ms: list[int]
    plays: int


def animation_of(image: ImageFile, limits: Limits) -> Animation | None:
    """The frames of an opened picture that moves; None where it does not, or where what is wanted cannot.

    Raises:
      ImageRejected: there are too many frames, or pixels in them; or they are damaged.
      OSError: the file could not be read.
    """
    if limits.output_format == "jpeg":
        return None
    first, count = _frame_range(image)
    if count < 2:
        return None
    _check(image.size, count, limits)
    fitted_px = _fit(image.size, count, limits)
    frames, durations_ms = [], []
    for frame in _seen(image, range(first, first + count)):
        frames.append(_prepared(frame, fitted_px))
        durations_ms.append(_duration_ms(frame))
    return Animation(frames, durations_ms, _plays(image))


def encode_animation(animation: Animation, target: Path, limits: Limits) -> Encoded:
    """Write an animation to `target` as WebP; otherwise as `encode`."""

    def save(path: Path, rung: Rung) -> None:
        first, *rest = [resize(frame, rung.size) for frame in animation.frames]
        first.save(
            path,
            format="WEBP",
            save_all=True,
            append_images=rest,
            duration=animation.durations_ms,
            loop=animation.plays,
            quality=rung.quality,
            method=2,
        )
        if any(frame.mode == "RGBA" for frame in animation.frames):
            _say_transparent(path)

    size = animation.frames[0].size
    task = Task(size, limits.least_edge_share * limits.max_edge_px, _QUALITIES, limits.max_bytes)
    found = search(task, save, target)
    return Encoded(WEBP.content_type, WEBP.extension, *found.size, found.size_bytes)


def _say_transparent(path: Path) -> None:
    """Set the file's flag of transparency (source: WebP container specification, "Extended file format").

    The encoder stores the changed part of each frame only. Where all these are opaque it leaves the flag out, though
    what is around them is not.
    """
    with path.open("r+b") as file:
        head = file.read(21)
        if head[12:16] == b"VP8X":
            file.seek(20)
            file.write(bytes((head[20] | 0x10,)))


def _frame_range(image: ImageFile) -> tuple[int, int]:
    """The first frame of the animation, and how many there are."""
    if not isinstance(image, GifImageFile | PngImageFile | WebPImageFile | AvifImageFile):
        return 0, 1  # pages, not frames
    with rejecting_damage():  # a GIF's frames are counted by reading it
        count = getattr(image, "n_frames", 1)
    is_apart = bool(getattr(image, "default_image", False))  # a PNG for those who cannot show the animation
    return int(is_apart), count - is_apart


def _check(size: tuple[int, int], count: int, limits: Limits) -> None:
    if count > limits.max_frames:
        raise ImageRejected(f"the animation has more than {limits.max_frames} frames")
    if size[0] * size[1] * count > limits.max_animation_pixels:
        raise ImageRejected(
            f"the animation has {size[0] * size[1] * count / 1e6:.4g} million pixels in all its frames; "
            f"at most {limits.max_animation_pixels / 1e6:.4g} million are accepted"
        )


def _fit(size: tuple[int, int], count: int, limits: Limits) -> tuple[int, int]:
    """The size in pixels of each frame."""
    share = math.sqrt(min(1.0, _MOST_HELD_PIXELS / (count * size[0] * size[1])))
    return replace(limits, max_edge_px=max(1, min(limits.max_edge_px, int(max(size) * share)))).fit(size)


def _seen(image: ImageFile, numbers: range) -> Iterator[ImageFile]:
    for number in numbers:
        with rejecting_damage():
            image.seek(number)
            image.load()
        yield image


def _prepared(frame: ImageFile, fitted_px: tuple[int, int]) -> Image.Image:
    """A copy of the frame that the next one does not paint over."""
    copy = frame.copy()
    prepared = prepare(Decoded(copy, fitted_px, orientation_of(frame), frame.info.get("icc_profile") or None))
    return prepared.convert("RGB") if prepared.mode == "L" else prepared


def _duration_ms(frame: ImageFile) -> int:
    duration = frame.info.get("duration", 0)
    duration_ms = round(duration) if isinstance(duration, int | float) and 0 <= duration < 2**24 else 0
    return duration_ms if duration_ms >= _SHORTEST_DURATION_MS else _DEFAULT_DURATION_MS


def _plays(image: ImageFile) -> int:
    """How often the animation is shown; a GIF says how often it is repeated, and once where it says nothing."""
    loop = image.info.get("loop")
    if isinstance(image, GifImageFile):
        loop = 1 if loop is None else loop + 1 if loop else 0
    return min(loop, 65_535) if isinstance(loop, int) and loop > 0 else 0

"""Process animations: prepare each frame as a picture, and encode all frames as one WebP within the byte budget.

All frames are in memory at once, so long animations become smaller ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.budget import Bounds, Grade, Qualities, search
from dream.imaging.content import content_of_pixels
from dream.imaging.damage import rejecting_damage
from dream.imaging.decode import Decoded, colours_of, frames_of, orientation_of
from dream.imaging.encode import WEBP, Encoded
from dream.imaging.frames import composed
from dream.imaging.gif import GifFile
from dream.imaging.limits import Limits
from dream.imaging.png import PngFile
from dream.imaging.structure import animation_bytes, check_memory
from dream.imaging.transform import prepare, resize

__all__ = ["Animation", "animation_of", "encode_animation", "is_animation"]

#: The most pixels of all frames together in memory, 4 bytes each.
_MOST_HELD_PIXELS = 40_000_000
#: Lossless encoding takes 50 ms a megapixel. So the first frames give an estimate of the bytes of all; a lossless file
#: is given up if that is over this many budgets. The estimate is seldom twice too high.
_FIRST, _HOPELESS = 4, 2.0
_LOSSLESS = {"lossless": True, "method": 0, "quality": 20}
_QUALITIES = Qualities(highest=80, lowest=60, lowest_share=0.6)
#: Milliseconds for which browsers show frames without a duration, or with a very short one.
_DEFAULT_DURATION_MS = 100
_SHORTEST_DURATION_MS = 20


@dataclass(frozen=True)
class Animation:
    """Frames as everybody sees them: sRGB, upright, of one size, in mode RGB or RGBA.

    Parameters:
      frames: at least two.
      durations_ms: the time for which each is shown.
      plays: the number of times that the animation is shown, 0 for ever.
    """

    frames: list[Image.Image]
    durations_ms: list[int]
    plays: int


def is_animation(image: ImageFile) -> bool:
    """Whether an opened file moves; the pages of a document do not."""
    return _count(image) > 1


def animation_of(image: ImageFile, limits: Limits) -> Animation | None:
    """The frames of an opened animation; None for a still picture, or if the output format has no animations.

    Raises:
      ImageRejected: there are too many frames, or pixels in them; or they are damaged.
      OSError: the file could not be read.
    """
    if limits.output_format == "jpeg" or not is_animation(image):
        return None
    count = _count(image)
    _check(image.size, count, limits)
    fitted_px = _fit(image.size, count, limits)
    frames, durations_ms = [], []
    for seen, duration_ms in _seen(image, count):
        frames.append(_prepared(image, seen, fitted_px))
        durations_ms.append(_shown_ms(duration_ms))
        del seen  # before the next one is decoded
    return Animation(frames, durations_ms, _plays(image))


def encode_animation(animation: Animation, target: Path, limits: Limits) -> Encoded:
    """Write an animation to `target` as WebP, without loss if it is drawn and fits; otherwise as `encode`."""
    size = animation.frames[0].size
    if content_of_pixels(animation.frames[0]).is_drawn:
        size_bytes = _save_lossless(animation, target, limits.max_bytes)
        if size_bytes <= limits.max_bytes:
            return Encoded(WEBP.content_type, WEBP.extension, *size, size_bytes)

    def save(path: Path, grade: Grade) -> None:
        frames = [resize(frame, grade.size) for frame in animation.frames]
        _save(replace(animation, frames=frames), path, quality=grade.quality, method=2)

    bounds = Bounds(size, limits.least_edge_share * limits.max_edge_px, _QUALITIES, limits.max_bytes)
    found = search(bounds, save, target)
    return Encoded(WEBP.content_type, WEBP.extension, *found.size, found.size_bytes)


def _save(animation: Animation, path: Path, **options: object) -> None:
    first, *rest = animation.frames
    first.save(
        path,
        format="WEBP",
        save_all=True,
        append_images=rest,
        duration=animation.durations_ms,
        loop=animation.plays,
        **options,
    )
    if any(frame.mode == "RGBA" for frame in animation.frames):
        _say_transparent(path)


def _save_lossless(animation: Animation, target: Path, max_bytes: int) -> int:
    """Write the animation without loss if it fits; returns its bytes, an estimate if it is far too large."""
    trial = target.with_name(f"{target.name}~")
    try:
        few = replace(animation, frames=animation.frames[:_FIRST], durations_ms=animation.durations_ms[:_FIRST])
        _save(few, trial, **_LOSSLESS)
        size_bytes = trial.stat().st_size
        if len(few.frames) < len(animation.frames):
            _save(replace(few, frames=few.frames[:1]), trial, **_LOSSLESS)
            first_bytes = trial.stat().st_size
            size_bytes = first_bytes + (size_bytes - first_bytes) // (_FIRST - 1) * (len(animation.frames) - 1)
            if size_bytes > _HOPELESS * max_bytes:
                return size_bytes
            _save(animation, trial, **_LOSSLESS)
            size_bytes = trial.stat().st_size
        if size_bytes <= max_bytes:
            trial.replace(target)
        return size_bytes
    finally:
        trial.unlink(missing_ok=True)


def _say_transparent(path: Path) -> None:
    """Set the file's flag of transparency (source: WebP container specification, "Extended file format").

    The encoder stores the changed part of each frame only. If all these parts are opaque, it leaves the flag out,
    although the area around them is transparent.
    """
    with path.open("r+b") as file:
        head = file.read(21)
        if head[12:16] == b"VP8X":
            file.seek(20)
            file.write(bytes((head[20] | 0x10,)))


def _count(image: ImageFile) -> int:
    """The number of frames; 1 for a file of pages."""
    if isinstance(image, WebPImageFile | AvifImageFile):
        return int(image.n_frames)
    return len(frames_of(image)) or 1


def _check(size: tuple[int, int], count: int, limits: Limits) -> None:
    if count > limits.max_frames:
        raise ImageRejected.because(Reason.TOO_MANY_FRAMES, most=limits.max_frames)
    if size[0] * size[1] * count > limits.max_animation_pixels:
        raise ImageRejected.because(
            Reason.ANIMATION_HAS_TOO_MANY_PIXELS,
            megapixels=size[0] * size[1] * count / 1e6,
            most=limits.max_animation_pixels / 1e6,
        )
    fitted_px = _fit(size, count, limits)
    check_memory(animation_bytes(size[0] * size[1], fitted_px[0] * fitted_px[1] * count), limits)


def _fit(size: tuple[int, int], count: int, limits: Limits) -> tuple[int, int]:
    """The size in pixels of each frame."""
    share = math.sqrt(min(1.0, _MOST_HELD_PIXELS / (count * size[0] * size[1])))
    return replace(limits, max_edge_px=max(1, min(limits.max_edge_px, int(max(size) * share)))).fit(size)


def _seen(image: ImageFile, count: int) -> Iterator[tuple[Image.Image, float]]:
    """The picture of each frame, in the file's orientation, and its duration in ms."""
    if frames := frames_of(image):
        for frame, seen in zip(frames, composed(image.size, frames), strict=True):
            yield seen.copy(), frame.duration_ms
        return
    for number in range(count):
        with rejecting_damage():
            image.seek(number)
            image.load()
        yield image.copy(), image.info.get("duration", 0)


def _prepared(image: ImageFile, seen: Image.Image, fitted_px: tuple[int, int]) -> Image.Image:
    prepared = prepare(Decoded(seen, fitted_px, orientation_of(image), colours_of(image)))
    return prepared.convert("RGB") if prepared.mode == "L" else prepared


def _shown_ms(duration_ms: float) -> int:
    rounded_ms = round(duration_ms) if 0 <= duration_ms < 2**24 else 0
    return rounded_ms if rounded_ms >= _SHORTEST_DURATION_MS else _DEFAULT_DURATION_MS


def _plays(image: ImageFile) -> int:
    """The number of times that the animation is shown; a GIF names the repetitions, and none means once."""
    loop = image.plays if isinstance(image, PngFile) else image.info.get("loop")
    if isinstance(image, GifFile):
        loop = 1 if loop is None else loop + 1 if loop else 0
    return min(loop, 65_535) if isinstance(loop, int) and loop > 0 else 0

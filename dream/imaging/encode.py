"""From pixels to a file within its byte budget.

Opaque pictures become JPEG, transparent ones WebP. The budget is met by search: the best quality between 78 and 90
that fits, and where even 78 does not, fewer pixels at 78. Nothing but pixels is written: no Exif, no place, no comment,
no profile (sRGB is what a picture without one means).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dream.errors import ImageRejected
from dream.imaging.transform import reduce_to

__all__ = ["Encoded", "encode"]

#: Below 78 blocks show on smooth skies; above 90 bytes are spent on what nobody sees.
_LOWEST_QUALITY = 78
_HIGHEST_QUALITY = 90
#: Where pixels are cut, a trial aims at this share of the budget.
_AIM = 0.95
#: A cut picture that uses this share of the budget is good enough, and so is the best of so many trials.
_WELL_USED = 0.85
_MOST_TRIALS = 6
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


def encode(image: Image.Image, target: Path, max_bytes: int) -> Encoded:
    """Write `image` to `target`, in at most `max_bytes`.

    Trials go to a file beside the target, which appears only when it is complete.

    Parameters:
      image: in mode L, RGB or RGBA, without metadata.

    Raises:
      ImageRejected: no picture is that small.
      OSError: the file could not be written.
    """
    is_transparent = image.mode == "RGBA"
    save = _save_webp if is_transparent else _save_jpeg
    trial = target.with_name(f"{target.name}~")  # no variant's name has a ~
    try:
        image = _search(image, save, trial, max_bytes)
        size_bytes = trial.stat().st_size
        trial.replace(target)
    finally:
        trial.unlink(missing_ok=True)
    kind = ("image/webp", "webp") if is_transparent else ("image/jpeg", "jpg")
    return Encoded(*kind, *image.size, size_bytes)


_Save = Callable[[Image.Image, Path, int], int]


def _search(image: Image.Image, save: _Save, trial: Path, max_bytes: int) -> Image.Image:
    """Leave the best picture that fits in `trial`, and return its pixels."""
    if save(image, trial, _HIGHEST_QUALITY) <= max_bytes:
        return image
    size_bytes = save(image, trial, _LOWEST_QUALITY)
    if size_bytes <= max_bytes:
        _raise_quality(image, save, trial, max_bytes)
        return image
    return _cut_pixels(image, save, trial, max_bytes, size_bytes)


def _raise_quality(image: Image.Image, save: _Save, trial: Path, max_bytes: int) -> None:
    """Halve the range between a quality that fits (the lowest, now in `trial`) and one that does not."""
    fits, exceeds, written = _LOWEST_QUALITY, _HIGHEST_QUALITY, _LOWEST_QUALITY
    while exceeds - fits > 1:
        written = (fits + exceeds) // 2
        if save(image, trial, written) <= max_bytes:
            fits = written
        else:
            exceeds = written
    if written != fits:
        save(image, trial, fits)


def _cut_pixels(image: Image.Image, save: _Save, trial: Path, max_bytes: int, size_bytes: int) -> Image.Image:
    """Reduce the picture, at the lowest quality, until it fits well.

    Each guess lies on the line, in logarithms, through a scale that fits and one that does not; before one fits, bytes
    are taken to grow as pixels do.
    """
    fits: tuple[float, int] | None = None  # scale, bytes
    exceeds = (1.0, size_bytes)
    trials = 0
    while fits is None or (fits[1] < _WELL_USED * max_bytes and trials < _MOST_TRIALS):
        trials += 1
        scale = _guess(fits, exceeds, max_bytes)
        picture = _scaled(image, scale)
        if fits is None and max(picture.size) < _SMALLEST_EDGE_PX:
            raise ImageRejected(f"the picture cannot be stored in {max_bytes} bytes")
        size_bytes = save(picture, trial, _LOWEST_QUALITY)
        if size_bytes <= max_bytes:
            fits = (scale, size_bytes)
        else:
            exceeds = (scale, size_bytes)
    if scale != fits[0]:
        picture = _scaled(image, fits[0])
        save(picture, trial, _LOWEST_QUALITY)
    return picture


def _guess(fits: tuple[float, int] | None, exceeds: tuple[float, int], max_bytes: int) -> float:
    """A scale between one that fits and one that exceeds."""
    if fits is None:
        return exceeds[0] * min(0.98, _AIM * math.sqrt(max_bytes / exceeds[1]))
    share = math.log(_AIM * max_bytes / fits[1]) / math.log(exceeds[1] / fits[1])
    return fits[0] * math.pow(exceeds[0] / fits[0], share)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return reduce_to(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _save_jpeg(image: Image.Image, path: Path, quality: int) -> int:
    """Write a JPEG and return its size in bytes."""
    try:
        image.save(path, format="JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True)
    except OSError as error:
        if error.errno is not None:
            raise
        # For these two options Pillow gives libjpeg a buffer of one byte a pixel, and pure noise may need more.
        image.save(path, format="JPEG", quality=quality, subsampling="4:2:0")
    return path.stat().st_size


def _save_webp(image: Image.Image, path: Path, quality: int) -> int:
    """Write a WebP and return its size in bytes."""
    image.save(path, format="WEBP", quality=quality, alpha_quality=100, method=4)
    return path.stat().st_size

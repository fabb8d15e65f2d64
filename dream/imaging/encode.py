"""Encode pixels as a file within its byte budget (`budget.py` finds the quality and the size).

```
photo ─► JPEG, WebP or AVIF, colours at half the scale, up to the quality above which no difference shows
drawn ─► WebP without loss, if that is wanted and fits
  └────► else with colours at full scale and of a higher quality, if that is good
  └────► else WebP without loss by more effort
  └────► else the nearest to the picture: colours at full or half the scale, or few colours without other loss
```

Only pixels are written: no Exif, no place, no comment, no profile (a picture without one is in sRGB).
Pillow saves to real files: while it saves into memory, no other thread runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from PIL import Image, ImageChops, ImageStat

from dream.imaging.budget import Bounds, Grade, Qualities, search
from dream.imaging.content import PHOTO, Content
from dream.imaging.forecast import affordable_px
from dream.imaging.limits import Limits, OutputFormat
from dream.imaging.transform import lay_on_white, resize
from dream.messages.pictures import OUTPUT_FORMATS

__all__ = ["AVIF", "JPEG", "WEBP", "Encoded", "Kind", "affordable_photo_px", "encode"]


class _Save(Protocol):
    """Encodes a picture of a suitable mode to a path, or a sample of one into memory."""

    def __call__(self, image: Image.Image, path: Path | BinaryIO, quality: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file that dream can write.

    Parameters:
      content_type, extension: as in `Processed`.
      save: writes a picture to a path at a quality.
      qualities: how good it may be.
      keeps_transparency: otherwise pictures must be laid on white first.
      keeps_pixels: quality gives way before pixels do.
    """

    content_type: str
    extension: str
    save: _Save
    qualities: Qualities
    keeps_transparency: bool = True
    keeps_pixels: bool = False

    def at_most(self, quality: int | None) -> Kind:
        """This kind with a lower highest quality, if one is given; below its range the quality does not give way."""
        highest, lowest, lowest_share, step = self.qualities
        if quality is None or quality >= highest:
            return self
        kept = max(0.0, (quality - lowest) / (highest - lowest))
        qualities = Qualities(quality, min(lowest, quality), min(_SAME_BYTES, lowest_share**kept), step)
        return replace(self, qualities=qualities)

    def admit(self, image: Image.Image) -> Image.Image:
        """The picture in a mode that this kind of file can hold."""
        return image if self.keeps_transparency else lay_on_white(image)


def _kind_for(image: Image.Image, wanted: OutputFormat, content: Content) -> Kind:
    """The lossy kind that a picture in mode L, RGB or RGBA becomes."""
    kinds = _DRAWN if content.is_drawn else _SHARP if content.is_sharp else _PHOTO
    if wanted == "auto":
        return kinds["webp" if image.mode == "RGBA" else "jpeg"]
    return kinds[wanted]


@dataclass(frozen=True)
class Encoded:
    """The file that was written."""

    content_type: str
    extension: str
    width_px: int
    height_px: int
    size_bytes: int


def encode(image: Image.Image, target: Path, limits: Limits, content: Content) -> Encoded:
    """Write `image` to `target`, in at most `limits.max_bytes`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      image: in mode L, RGB or RGBA, without metadata, within the longest edge.
      content: photo or drawing.

    Raises:
      ImageRejected: even the smallest picture exceeds the budget.
      OSError: the file could not be written.
    """
    kind = _kind_for(image, limits.output_format, content)
    if limits.highest_quality is not None:
        return _encode_as(image, target, limits, kind.at_most(limits.highest_quality))
    lossless_bytes = None
    if _may_be_lossless(kind, limits, content):
        lossless_bytes = _save_lossless(image, target, limits, _QUICK if _is_large(image) else _THOROUGH)
        if lossless_bytes <= limits.max_bytes:
            return _without_loss(image, lossless_bytes)
    encoded, is_good = _encode_with_loss(image, target, limits, kind)
    if is_good or not content.is_sharp:
        return encoded
    if lossless_bytes is not None and _is_large(image) and lossless_bytes <= _MOST_SAVED * limits.max_bytes:
        lossless_bytes = _save_lossless(image, target, limits, _THOROUGH)
        if lossless_bytes <= limits.max_bytes:
            return _without_loss(image, lossless_bytes)
    return _nearest(image, target, limits, kind, encoded)


def affordable_photo_px(image: Image.Image, fitted_px: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """The size to which to reduce the pixels of a decoded JPEG: `fitted_px`, or less if its file would not fit.

    Parameters:
      image: in any mode.
      fitted_px: the largest size.
    """
    if limits.output_format not in {"auto", "jpeg"} or image.mode not in {"L", "RGB"}:
        return fitted_px
    save = partial(JPEG.save, quality=JPEG.qualities.highest)
    return affordable_px(image, fitted_px, limits.least_edge_share * limits.max_edge_px, save, limits.max_bytes)


def _nearest(image: Image.Image, target: Path, limits: Limits, kind: Kind, encoded: Encoded) -> Encoded:
    """Encode in the way that comes nearest to the picture, if the budget is too small for colours at full scale.

    Parameters:
      kind, encoded: the file in the target, which may be replaced.
    """
    rival_path = target.with_name(f"{target.name}~")
    kinds = [_kind_for(image, limits.output_format, each) for each in _CONTENTS]
    if kind is WEBP:  # has colours at half the scale in any case
        kinds = []
    rivals: list[Callable[[], Encoded | None]] = [
        *(partial(_encode_as, image, rival_path, limits, other) for other in kinds if other is not kind),
        *(partial(_save_with_few_colours, image, rival_path, limits, method) for method in _QUANTIZERS),
    ]
    least = _distance(image, target)
    try:
        for rival in rivals:
            made = rival()
            if made is not None and (distance := _distance(image, rival_path)) < least:
                least, encoded = distance, made
                rival_path.replace(target)
    finally:
        rival_path.unlink(missing_ok=True)
    return encoded


def _encode_as(image: Image.Image, target: Path, limits: Limits, kind: Kind) -> Encoded:
    return _encode_with_loss(image, target, limits, kind)[0]


def _distance(image: Image.Image, path: Path) -> float:
    """The distance of a file from the picture: the mean difference in levels, on white."""
    with Image.open(path) as written:
        seen = lay_on_white(written.convert("RGBA" if written.has_transparency_data else "RGB"))
    meant = lay_on_white(image).convert("RGB")
    means = ImageStat.Stat(ImageChops.difference(meant, resize(seen, meant.size))).mean
    return sum(means) / len(means)


def _encode_with_loss(image: Image.Image, target: Path, limits: Limits, kind: Kind) -> tuple[Encoded, bool]:
    """The file that was written, and whether it has all pixels at a quality that shows next to no flaws."""
    admitted = kind.admit(image)

    def save(path: Path, grade: Grade) -> None:
        kind.save(resize(admitted, grade.size), path, grade.quality)

    floor_px = max(image.size) if kind.keeps_pixels else limits.least_edge_share * limits.max_edge_px
    bounds = Bounds(image.size, floor_px, kind.qualities, limits.max_bytes)
    found = search(bounds, save, target)
    is_good = found.size == image.size and found.quality >= kind.qualities.highest - _GOOD_LOSS
    return Encoded(kind.content_type, kind.extension, *found.size, found.size_bytes), is_good


def _may_be_lossless(kind: Kind, limits: Limits, content: Content) -> bool:
    """Whether a lossless WebP is worth a try: a lossy one keeps colours at half the scale."""
    if limits.output_format not in {"auto", "webp"}:
        return False
    is_webp = kind.content_type == WEBP.content_type
    return content.is_drawn or (is_webp and content.is_sharp and content.lossless_bytes <= limits.max_bytes)


def _without_loss(image: Image.Image, size_bytes: int) -> Encoded:
    return Encoded(WEBP.content_type, WEBP.extension, *image.size, size_bytes)


def _save_lossless(image: Image.Image, target: Path, limits: Limits, effort: tuple[int, int]) -> int:
    """Encode a lossless WebP, and make it the target if it fits; returns its bytes."""
    trial = target.with_name(f"{target.name}~")
    try:
        image.save(trial, format="WEBP", lossless=True, method=effort[0], quality=effort[1])
        size_bytes = trial.stat().st_size
        if size_bytes <= limits.max_bytes:
            trial.replace(target)
        return size_bytes
    finally:
        trial.unlink(missing_ok=True)


def _is_large(image: Image.Image) -> bool:
    return image.width * image.height > _SMALL_PIXELS


def _save_with_few_colours(image: Image.Image, target: Path, limits: Limits, method: Image.Quantize) -> Encoded | None:
    """Write a lossless WebP of at most 256 colours; None if it does not fit."""
    if limits.output_format not in {"auto", "webp"} or (image.mode == "RGBA" and method not in _FOR_ALPHA):
        return None
    full = image.convert("RGB") if image.mode == "L" else image
    few = full.quantize(method=method, dither=Image.Dither.NONE).convert(full.mode)
    size_bytes = _save_lossless(few, target, limits, _QUICK)
    return _without_loss(image, size_bytes) if size_bytes <= limits.max_bytes else None


#: Methods and qualities of WebP's lossless encoder: 20 to 50 ms a megapixel, and three to ten times that.
_QUICK, _THOROUGH = (0, 20), (3, 30)
#: Pictures up to this size get the greater effort at once.
_SMALL_PIXELS = 1_000_000
#: The greater effort saves up to half of the bytes.
_MOST_SAVED = 2.0
#: Other ways, which take longer, are tried only if the quality is this far below the highest.
_GOOD_LOSS = 12
#: The first takes fewer colours, and so fewer bytes, the second comes nearer to the picture.
_QUANTIZERS = (Image.Quantize.FASTOCTREE, Image.Quantize.MEDIANCUT)
_FOR_ALPHA = frozenset({Image.Quantize.FASTOCTREE})
#: The share of bytes at the lowest quality, if it is also the highest.
_SAME_BYTES = 0.99
#: All kinds of content, with loss.
_CONTENTS = (PHOTO, Content(is_drawn=True, is_sharp=True, lossless_bytes=0))

#: Quantisation tables by N. Robidoux, which ImageMagick and mozjpeg have, too: at equal SSIMULACRA2 about 10% fewer
#: bytes than with the tables of ITU-T T.81, annex K. One table serves brightness and colour.
_ROBIDOUX = (
    *(16, 16, 16, 18, 25, 37, 56, 85),
    *(16, 17, 20, 27, 34, 40, 53, 75),
    *(16, 20, 24, 31, 43, 62, 91, 135),
    *(18, 27, 31, 40, 53, 74, 106, 156),
    *(25, 34, 43, 53, 69, 94, 131, 189),
    *(37, 40, 62, 74, 94, 124, 169, 238),
    *(56, 53, 91, 106, 131, 169, 226, 311),
    *(85, 75, 135, 156, 189, 238, 311, 418),
)


#: The places of the table, those of the smallest numbers first.
_FINEST_FIRST = sorted(range(64), key=_ROBIDOUX.__getitem__)


def _table(quality: float) -> list[int]:
    """The quantisation table of a quality.

    A whole quality has libjpeg's numbers. Between two of them the small numbers, by which SSIMULACRA2 loses most, are
    still the better ones: a step of an eighth takes about 1% of the bytes, where a whole one takes up to 10%.
    """
    whole = int(quality)
    table = _scaled(whole)
    if quality > whole:
        better = _scaled(whole + 1)
        costs = [math.log(table[place] / better[place]) / _ROBIDOUX[place] for place in _FINEST_FIRST]
        left = (quality - whole) * sum(costs)
        for place, cost in zip(_FINEST_FIRST, costs, strict=True):
            left -= cost
            if left < 0:
                break
            table[place] = better[place]
    return table


def _scaled(quality: int) -> list[int]:
    """The table of a whole quality, as libjpeg scales it (`jpeg_set_quality`)."""
    percent = 200 - 2 * quality if quality >= 50 else 5000 // quality
    return [min(max((number * percent + 50) // 100, 1), 255) for number in _ROBIDOUX]


def _save_jpeg(image: Image.Image, path: Path | BinaryIO, quality: float, subsampling: str = "4:2:0") -> None:
    # Huffman tables of their own would save 1 to 3.5% for two to three times the time, progressive files 3 to 8% for
    # five times the time.
    table = _table(quality)
    image.save(path, format="JPEG", qtables=(table, table), subsampling=subsampling)


def _save_webp(image: Image.Image, path: Path | BinaryIO, quality: float) -> None:
    # At equal SSIMULACRA2, methods 4 and 6 would save 4% and 8% for 2.1 and 5.6 times the time (benchmarks/formats.py).
    image.save(path, format="WEBP", quality=quality, alpha_quality=100, method=2)


def _save_avif(image: Image.Image, path: Path | BinaryIO, quality: float, subsampling: str = "4:2:0") -> None:
    # At equal SSIMULACRA2, speeds 8 and 6 would save 6% and 14% for 3.7 and 11 times the time (benchmarks/formats.py).
    image.save(path, format="AVIF", quality=quality, subsampling=subsampling, speed=9, max_threads=1)


#: The step of JPEG's qualities.
_EIGHTH = 1 / 8

JPEG = Kind(
    **OUTPUT_FORMATS["jpeg"]._asdict(),
    save=_save_jpeg,
    qualities=Qualities(highest=90, lowest=80, lowest_share=0.58, step=_EIGHTH),
    keeps_transparency=False,
)
WEBP = Kind(
    **OUTPUT_FORMATS["webp"]._asdict(),
    save=_save_webp,
    qualities=Qualities(highest=90, lowest=78, lowest_share=0.5),
)
AVIF = Kind(
    **OUTPUT_FORMATS["avif"]._asdict(),
    save=_save_avif,
    qualities=Qualities(highest=78, lowest=60, lowest_share=0.45),
)
_SHARP_JPEG = replace(
    JPEG, save=partial(_save_jpeg, subsampling="4:4:4"), qualities=JPEG.qualities._replace(lowest_share=0.64)
)
_SHARP_AVIF = replace(AVIF, save=partial(_save_avif, subsampling="4:4:4"))

#: For photos, for photos with coloured edges in them, and for drawings. From quality 97 to 100 a drawn JPEG
#: grows by half, for two levels less of difference in the mean. Pixels keep letters readable, so they give way last.
_PHOTO = {"jpeg": JPEG, "webp": WEBP, "avif": AVIF}
_SHARP = {"jpeg": _SHARP_JPEG, "webp": WEBP, "avif": _SHARP_AVIF}
_DRAWN = {
    "jpeg": replace(_SHARP_JPEG, qualities=Qualities(97, 75, 0.37, _EIGHTH), keeps_pixels=True),
    "webp": replace(WEBP, qualities=Qualities(97, 78, 0.35), keeps_pixels=True),
    "avif": replace(_SHARP_AVIF, qualities=Qualities(95, 65, 0.35), keeps_pixels=True),
}

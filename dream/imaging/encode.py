"""From pixels to a file of a certain kind, within its byte budget (`budget.py` finds the quality and the size).

Nothing but pixels is written: no Exif, no place, no comment, no profile (sRGB is what a picture without one means).
Files are real ones, for while Pillow saves into memory no other thread runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dream.imaging.budget import Qualities, Rung, Task, search
from dream.imaging.limits import Limits, OutputFormat
from dream.imaging.resize import resize
from dream.imaging.transform import lay_on_white

__all__ = ["AVIF", "JPEG", "WEBP", "Encoded", "Kind", "encode", "kind_for"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file that can come out.

    Parameters:
      content_type, extension: as in `Processed`.
      save: writes a picture to a path at a quality.
      qualities: how good it may be.
      keeps_transparency: otherwise pictures are to be laid on white.
    """

    content_type: str
    extension: str
    save: Callable[[Image.Image, Path, int], None]
    qualities: Qualities
    keeps_transparency: bool = True

    def admit(self, image: Image.Image) -> Image.Image:
        """The picture in a mode that this kind of file can hold."""
        return image if self.keeps_transparency else lay_on_white(image)


def kind_for(image: Image.Image, wanted: OutputFormat) -> Kind:
    """What a picture in mode L, RGB or RGBA becomes."""
    if wanted == "auto":
        return WEBP if image.mode == "RGBA" else JPEG
    return {"jpeg": JPEG, "webp": WEBP, "avif": AVIF}[wanted]


@dataclass(frozen=True)
class Encoded:
    """What was written."""

    content_type: str
    extension: str
    width_px: int
    height_px: int
    size_bytes: int


def encode(image: Image.Image, target: Path, limits: Limits, kind: Kind) -> Encoded:
    """Write `image` to `target`, in at most `limits.max_bytes`.

    Tries go to files beside the target, which appears only when it is complete.

    Parameters:
      image: in mode L, RGB or RGBA, without metadata, within the longest edge.

    Raises:
      ImageRejected: no picture is that small.
      OSError: the file could not be written.
    """
    admitted = kind.admit(image)

    def save(path: Path, rung: Rung) -> None:
        kind.save(resize(admitted, rung.size), path, rung.quality)

    task = Task(image.size, limits.least_edge_share * limits.max_edge_px, kind.qualities, limits.max_bytes)
    found = search(task, save, target)
    return Encoded(kind.content_type, kind.extension, *found.size, found.size_bytes)


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


def _save_jpeg(image: Image.Image, path: Path, quality: int) -> None:
    # Huffman tables of their own would save 3% for twice the time, progressive files 3 to 8% for five times the time.
    image.save(path, format="JPEG", quality=quality, qtables=(_ROBIDOUX, _ROBIDOUX), subsampling="4:2:0")


def _save_webp(image: Image.Image, path: Path, quality: int) -> None:
    # Method 2 takes half the time of 3 and 4, which save no bytes at these qualities.
    image.save(path, format="WEBP", quality=quality, alpha_quality=100, method=2)


def _save_avif(image: Image.Image, path: Path, quality: int) -> None:
    # Speed 8 would save 5% for twice the time.
    image.save(path, format="AVIF", quality=quality, subsampling="4:2:0", speed=9, max_threads=1)


JPEG = Kind(
    content_type="image/jpeg",
    extension="jpg",
    save=_save_jpeg,
    qualities=Qualities(highest=90, lowest=80, lowest_share=0.58),
    keeps_transparency=False,
)
WEBP = Kind(
    content_type="image/webp",
    extension="webp",
    save=_save_webp,
    qualities=Qualities(highest=90, lowest=78, lowest_share=0.5),
)
AVIF = Kind(
    content_type="image/avif",
    extension="avif",
    save=_save_avif,
    qualities=Qualities(highest=78, lowest=60, lowest_share=0.45),
)

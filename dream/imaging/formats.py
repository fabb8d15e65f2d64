"""Which picture formats are accepted, told apart by their first bytes and never by a file's name.

Each opens with Pillow's class for it, so that no other decoder ever sees an uploaded file. A multi-picture JPEG (MPO)
opens as the JPEG that it begins with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from PIL.AvifImagePlugin import SUPPORTED as HAS_AVIF
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

__all__ = ["ACCEPTED", "HEAD_BYTES", "opener_for"]

#: For people: the formats that are accepted.
ACCEPTED = "JPEG, PNG, WebP, GIF, TIFF, BMP" + (" and AVIF" if HAS_AVIF else "")

#: How much of a file's beginning `opener_for` wants to see.
HEAD_BYTES = 64

_BY_PREFIX: tuple[tuple[bytes, Callable[[BinaryIO], ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"BM", BmpImageFile),
)


def opener_for(head: bytes) -> Callable[[BinaryIO], ImageFile] | None:
    """What opens a file that begins with `head`; None where its format is not accepted."""
    for prefix, opener in _BY_PREFIX:
        if head.startswith(prefix):
            return opener
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    if HAS_AVIF and head[4:8] == b"ftyp" and _is_avif(head):
        return AvifImageFile
    return None


def _is_avif(head: bytes) -> bool:
    """Whether the brands of the file-type box, which opens the file, name AVIF (ISO/IEC 14496-12, 4.3)."""
    box = head[: int.from_bytes(head[:4], "big")]
    brands = [box[8:12], *(box[start : start + 4] for start in range(16, len(box), 4))]
    return b"avif" in brands or b"avis" in brands

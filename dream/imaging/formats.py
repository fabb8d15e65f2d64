"""Accepted formats of pictures, recognised by their first bytes and never by a file's name.

Each format opens with Pillow's class for it, or with a subclass of dream's, so no other decoder ever sees an uploaded
file. A multi-picture JPEG (MPO) opens as the JPEG that it begins with.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from PIL.AvifImagePlugin import SUPPORTED as HAS_AVIF
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.avif import AvifFile
from dream.imaging.colour_space import by_code_points
from dream.imaging.gif import GifFile
from dream.imaging.media_types import HAS_HEIF
from dream.imaging.png import PngFile
from dream.imaging.tiff import TiffFile

__all__ = ["ACCEPTED", "HEAD_BYTES", "opener_for"]

#: The accepted formats, for people.
ACCEPTED = "JPEG, PNG, WebP, GIF, TIFF, BMP" + ", AVIF" * HAS_AVIF + ", HEIC" * HAS_HEIF

#: The number of bytes at a file's beginning that `opener_for` needs.
HEAD_BYTES = 64

_BY_PREFIX: tuple[tuple[bytes, Callable[[BinaryIO], ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngFile),
    (b"GIF87a", GifFile),
    (b"GIF89a", GifFile),
    (b"II*\0", TiffFile),
    (b"MM\0*", TiffFile),
    (b"II+\0", TiffFile),
    (b"BM", BmpImageFile),
)

#: Beginnings of pictures that are not opened, and the reason for each.
_REFUSED: tuple[tuple[bytes, Reason], ...] = (
    # A BigTIFF whose highest byte comes first: Pillow takes it for a small one.
    (b"MM\0+", Reason.FORMAT_NOT_SUPPORTED),
    *(
        (magic, Reason.RAW_NOT_SUPPORTED)
        for magic in (
            *(b"IIRO", b"IIRS", b"MMOR", b"IIU\0"),  # Olympus and Panasonic, nearly TIFFs
            *(b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAPCCDR", b"\0MRM", b"FOVb"),  # Fujifilm, Canon, Minolta, Sigma
        )
    ),
)

#: Brands of still pictures and of sequences, by ISO/IEC 23008-12, annex B, and AV1 Image File Format, section 6.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
#: Canon's CR3.
_RAW_BRANDS = frozenset({b"crx "})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})

_NCLX = re.compile(rb"colrnclx(.{6})", re.DOTALL)
#: Matrix coefficients by ITU-T H.273, table 4.
_MATRICES = frozenset(range(18)) - {3}


def opener_for(head: bytes) -> Callable[[BinaryIO], ImageFile] | None:
    """The opener of a file that begins with `head`; None if its format is not accepted.

    Raises:
      ImageRejected: the extra `heif` is missing, or the refusal has advice for this kind of file.
    """
    for prefix, opener in _BY_PREFIX:
        if head.startswith(prefix):
            return opener
    for prefix, reason in _REFUSED:
        if head.startswith(prefix):
            raise ImageRejected.because(reason)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebpFile
    brands = _brands(head)
    if HAS_AVIF and brands & _AVIF_BRANDS:
        return AvifFile
    if brands & _RAW_BRANDS:
        raise ImageRejected.because(Reason.RAW_NOT_SUPPORTED)
    if brands & _HEIF_BRANDS:
        return _heif_opener()
    return None


def _heif_opener() -> Callable[[BinaryIO], ImageFile]:
    """The opener of HEIC; the first such picture loads its decoder.

    Raises:
      ImageRejected: the extra `heif` is not installed.
    """
    try:
        from pillow_heif import HeifImageFile, options
    except ImportError:
        raise ImageRejected.because(Reason.HEIC_NOT_SUPPORTED) from None
    options.DECODE_THREADS = 1  # the pool has a process for each CPU
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    opener: Callable[[BinaryIO], ImageFile] = HeifImageFile

    def open_heic(file: BinaryIO) -> ImageFile:
        try:
            return opener(file)
        except SyntaxError as error:
            if "nclx" not in str(error).lower():
                raise
            file.seek(0)
            return opener(io.BytesIO(_NCLX.sub(_without_reserved, file.read())))

    return open_heic


def _without_reserved(nclx: re.Match[bytes]) -> bytes:
    """The nclx with "unspecified" in place of reserved numbers, for which libheif refuses the file."""
    primaries, transfer, matrix = struct.unpack(">3H", nclx[1])
    is_known = by_code_points(primaries, transfer) is not None and matrix in _MATRICES
    return nclx[0] if is_known else b"colrnclx" + struct.pack(">3H", 2, 2, 2)


def _brands(head: bytes) -> set[bytes]:
    """The brands that a file-type box, which opens a file, names (ISO/IEC 14496-12, 4.3)."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: int.from_bytes(head[:4], "big")]
    return {box[8:12], *(box[start : start + 4] for start in range(16, len(box), 4))}


class WebpFile(WebPImageFile):
    """A WebP that frees the decoder of a still picture with its only frame.

    The decoder is made for animations. It keeps two canvases of 4 bytes a pixel, besides the pixels that it returns and
    the picture that Pillow makes of them.
    """

    def _get_next(self) -> tuple[bytes, int, int]:
        following = super()._get_next()
        if self.n_frames == 1:
            self._decoder = None
        return following

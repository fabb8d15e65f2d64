"""Collect libtiff's reports of damage, which Pillow passes on to nobody.

libtiff's decoders of faxes (Group 3, Group 4) and PackBits go on after an invalid code, and return garbage. They report
it, but Pillow passes nothing on: errors are printed, and each picture that it opens switches warnings off. The same is
true for libjpeg, which decodes JPEGs in TIFFs.
"""

from __future__ import annotations

import ctypes
import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import TiffImageFile

from dream.imaging.damage import RAISED_BY_DECODERS
from dream.imaging.jpeg_segments import FRAMES, segments

__all__ = ["Reports", "is_cut_short", "reports"]

#: Handlers belong to the whole process. Reentrant, because Pillow loads within loading, to turn the picture.
_lock = threading.RLock()
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_Extender = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
#: The decoder whose warnings are about one damaged row, after which the next row may be whole.
_ROW_BY_ROW = b"Fax3"
#: Other decoders whose warnings mean damage.
_HEARD = (b"Fax4", b"PackBits")
#: libjpeg's warnings come as texts; these mean lost pixels.
_JPEG = b"JPEGLib"
_LOST = (b"premature end", b"bad huffman code")
_LONGEST_TEXT = 200
#: The bytes of a TIFF's header, and the number of entries in the directory of `_as_tiff`.
_HEAD_BYTES, _ENTRIES = 8, 10


class Reports:
    """Counts of what libtiff has reported.

    Parameters:
      errors: data that it could not decode.
      losses: JPEGs whose data ended before their pixels. libjpeg reports only the first fault of a picture.
      odd_rows: rows that it filled up or cut off, in faxes where each row begins anew.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.losses = 0
        self.odd_rows = 0


@contextmanager
def reports() -> Iterator[Reports]:
    """Count the reports of decoding inside the block; none if Pillow's libtiff is not found, as outside Linux."""
    said = Reports()
    library = _library()
    if library is None:
        yield said
        return

    def hear_error(_module: bytes | None, _wording: bytes | None, _values: int | None) -> None:
        said.errors += 1

    def hear_warning(module: bytes | None, wording: bytes | None, values: int | None) -> None:
        decoder = module or b""
        said.odd_rows += decoder.startswith(_ROW_BY_ROW)
        said.errors += decoder.startswith(_HEARD)
        said.losses += decoder == _JPEG and any(lost in _text(wording, values).lower() for lost in _LOST)

    on_error, on_warning = _Handler(hear_error), _Handler(hear_warning)

    def at_opening(_picture: int | None) -> None:
        library.TIFFSetWarningHandler(_place(on_warning))

    at_open = _Extender(at_opening)
    with _lock:
        before = [
            (library.TIFFSetErrorHandler, library.TIFFSetErrorHandler(_place(on_error))),
            (library.TIFFSetWarningHandler, library.TIFFSetWarningHandler(_place(on_warning))),
            (library.TIFFSetTagExtender, library.TIFFSetTagExtender(_place(at_open))),
        ]
        try:
            yield said
        finally:
            for restore, handler in before:
                restore(handler)


def is_cut_short(jpeg: bytes) -> bool:
    """Whether a JPEG's compressed data ends before its pixels do; False if libtiff is not found.

    libjpeg fills up missing pixels. Pillow passes none of its warnings on, so the JPEG is decoded as the one strip of a
    TIFF, and libtiff reports them.
    """
    try:
        with reports() as said:
            TiffImageFile(io.BytesIO(_as_tiff(jpeg))).load()
    except RAISED_BY_DECODERS:
        return False
    return said.losses > 0 and not said.errors


def _as_tiff(jpeg: bytes) -> bytes:
    """A TIFF of one strip, which is a JPEG of one or three components (source: TIFF technical note 2)."""
    frame = next(segment for segment in segments(jpeg) if segment.marker in FRAMES)
    height, width, components = struct.unpack_from(">HHB", jpeg, frame.payload + 1)
    sampling_at = frame.payload + 7
    sampling = jpeg[sampling_at]
    three = components == 3
    if not three:  # a single component's sampling means nothing, but libtiff insists on 1 × 1
        jpeg = jpeg[:sampling_at] + b"\x11" + jpeg[sampling_at + 1 :]
    depths_at = _HEAD_BYTES + 2 + 12 * _ENTRIES + 4
    tags = (
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, components, depths_at if three else 8),
        (259, 3, 1, 7),  # JPEG
        (262, 3, 1, 6 if three else 1),  # YCbCr, or grey
        (273, 4, 1, depths_at + 6),
        (277, 3, 1, components),
        (278, 4, 1, height),
        (279, 4, 1, len(jpeg)),
        (530, 3, 2, (sampling >> 4) | (sampling & 15) << 16),
    )
    directory = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return struct.pack("<2sHLH", b"II", 42, _HEAD_BYTES, _ENTRIES) + directory + bytes(4) + b"\x08\0" * 3 + jpeg


def _place(function: Any) -> ctypes.c_void_p:
    return ctypes.cast(function, ctypes.c_void_p)


def _text(wording: bytes | None, values: int | None) -> bytes:
    """A message with its values, which are a C va_list, put in."""
    text = ctypes.create_string_buffer(_LONGEST_TEXT)
    ctypes.CDLL(None).vsnprintf(text, ctypes.c_size_t(_LONGEST_TEXT), ctypes.c_char_p(wording), ctypes.c_void_p(values))
    return text.value


@lru_cache(1)
def _library() -> ctypes.CDLL | None:
    """The libtiff that Pillow has loaded; None if it cannot be found."""
    from PIL import _imaging  # noqa: F401 (it loads libtiff)

    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        library = ctypes.CDLL(next(line.split(maxsplit=5)[5] for line in lines if "/libtiff" in line))
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler, library.TIFFSetTagExtender):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    except (OSError, StopIteration, AttributeError, IndexError):
        return None
    return library

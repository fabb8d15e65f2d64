"""A JPEG that is good as it is: its pixels stay bit for bit, and all that is private is cut out of its file.

```
SOI │ APP0 JFIF │ APP1 Exif, XMP │ APP2 ICC │ APP13 IPTC │ COM │ DQT SOF DHT SOS … │ EOI │ previews, films, anything
 ✓       ✓              ✗             ✓          ✗         ✗            ✓             ✓              ✗
```

(Source of what is in segments: JFIF 1.02, Exif 2.32, ICC.1:2022 annex B.)
"""

from __future__ import annotations

from typing import BinaryIO

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.imaging.colour import is_srgb
from dream.imaging.decode import orientation_of
from dream.imaging.jpeg_segments import END_OF_IMAGE, FRAMES, START_OF_SCAN, WITHOUT_LENGTH, segments
from dream.imaging.limits import Limits

__all__ = ["cleaned"]

_APP0, _APP2, _APP14 = 0xE0, 0xE2, 0xEE
#: Frames of Huffman-coded baseline, extended and progressive pictures: what every browser shows.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
#: What has no business between the segments of such a picture.
_STRANGE = (FRAMES - _SHOWN_FRAMES) | WITHOUT_LENGTH
#: Tables, scans and intervals: what pixels are decoded with.
_DECODING = frozenset({*_SHOWN_FRAMES, 0xC4, 0xDB, START_OF_SCAN, 0xDD})
#: Application data that says how to show the pixels, told by what it begins with.
_SHOWING = {_APP0: b"JFIF\0", _APP2: b"ICC_PROFILE\0", _APP14: b"Adobe"}
#: What these two segments hold; a thumbnail may follow the first, and anything the second.
_JFIF_BYTES = 14
_ADOBE_BYTES = 12


def cleaned(file: BinaryIO, image: ImageFile, limits: Limits) -> bytes | None:
    """The file without what is private, where it may stay as it is; None where it must be encoded anew.

    It may where it is an upright sRGB JPEG within the longest edge and the byte budget, and a JPEG is wanted.

    Parameters:
      file: the file that `image` was opened from, which is read.
    """
    if not isinstance(image, JpegImageFile) or limits.output_format not in {"auto", "jpeg"}:
        return None
    if max(image.size) > limits.max_edge_px or orientation_of(image) != 1:
        return None
    if not is_srgb(image.mode, image.info.get("icc_profile")):
        return None
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    kept = _without_private_segments(data)
    return kept if kept is not None and len(kept) <= limits.max_bytes else None


def _without_private_segments(data: bytes) -> bytes | None:
    """The JPEG at the start of `data`; None where it is not put together as it should be."""
    kept = [data[:2]]
    end, is_in_scan = 2, False
    for segment in segments(data):
        between = data[end : segment.start]
        if is_in_scan:
            kept.append(between)
        elif between.strip(b"\xff"):  # more than filling
            return None
        end = segment.end
        if segment.marker == END_OF_IMAGE:
            return b"".join((*kept, data[segment.start : end]))
        if segment.marker in _STRANGE:
            return None
        kept.append(_kept_of(segment.marker, data[segment.start : end]))
        is_in_scan = segment.marker == START_OF_SCAN
    return None


def _kept_of(marker: int, segment: bytes) -> bytes:
    """What is kept of a segment (with its marker and length): all, its beginning, or nothing."""
    if marker in _DECODING:
        return segment
    says = _SHOWING.get(marker)
    if says is None or not segment[4:].startswith(says):
        return b""
    if marker == _APP0:
        return _shortened(segment, _JFIF_BYTES)[:-2] + b"\0\0"  # a thumbnail of no pixels
    if marker == _APP14:
        return _shortened(segment, _ADOBE_BYTES)
    return segment


def _shortened(segment: bytes, payload_bytes: int) -> bytes:
    return (
        segment[:2]
        + (2 + payload_bytes).to_bytes(2, "big")
        + segment[4 : 4 + payload_bytes].ljust(payload_bytes, b"\0")
    )

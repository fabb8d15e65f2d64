"""A JPEG that is good as it is: its pixels stay bit for bit, and all that is private is cut out of its file.

```
SOI │ APP0 JFIF │ APP1 Exif, XMP │ APP2 ICC │ APP13 IPTC │ COM │ DQT SOF DHT SOS … │ EOI │ previews, films, anything
 ✓       ✓              ✗             ✓          ✗         ✗            ✓             ✓              ✗
```

(Source of markers and segments: ITU-T T.81, annex B; of what is in them: JFIF 1.02, Exif 2.32, ICC.1:2022 annex B.)
"""

from __future__ import annotations

import re
from typing import BinaryIO

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.imaging.colour import is_srgb
from dream.imaging.decode import orientation_of
from dream.imaging.limits import Limits

__all__ = ["cleaned"]

_EOI, _SOS, _APP0, _APP2, _APP14 = 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
#: Frames of Huffman-coded baseline, extended and progressive pictures: what every browser shows.
_SHOWN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers without a segment, which have no business between segments.
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
#: Tables, scans and intervals: what pixels are decoded with.
_DECODING = frozenset({*_SHOWN_FRAMES, 0xC4, 0xDB, _SOS, 0xDD})
#: Application data that says how to show the pixels, told by what it begins with.
_SHOWING = {_APP0: b"JFIF\0", _APP2: b"ICC_PROFILE\0", _APP14: b"Adobe"}
#: What these two segments hold; a thumbnail may follow the first, and anything the second.
_JFIF_BYTES = 14
_ADOBE_BYTES = 12
#: The end of a scan: FF not followed by 00 (a data byte), D0–D7 (a restart) or FF (filling).
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def cleaned(file: BinaryIO, image: ImageFile, limits: Limits) -> bytes | None:
    """The file without what is private, where it may stay as it is; None where it must be encoded anew.

    It may where it is an upright sRGB JPEG within the longest edge and the byte budget, and a JPEG is wanted.

    Parameters:
      file: the file that `image` was opened from, which is read.
    """
    if not isinstance(image, JpegImageFile) or limits.output_format not in {"auto", "jpeg"}:
        return None
    if max(image.size) > limits.max_edge_px or image.mode not in {"L", "RGB"} or orientation_of(image) != 1:
        return None
    profile = image.info.get("icc_profile")
    if profile and not (image.mode == "RGB" and is_srgb(profile)):
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
    at = 2
    while data[at : at + 1] == b"\xff" and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == _EOI:
            return b"".join((*kept, data[at : at + 2]))
        if marker in _BARE or marker in _OTHER_FRAMES:
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept.append(_kept_of(marker, data[at:end]))
        if marker == _SOS:
            found = _NEXT_MARKER.search(data, end)
            if found is None:
                return None
            kept.append(data[end : found.start()])
            end = found.start()
        at = end
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

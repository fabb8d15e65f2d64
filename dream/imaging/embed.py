"""Put a description in XMP, and Exif, into a finished picture. Its pixels stay as they are.

| file | place |
| --- | --- |
| JPEG | APP1 segments behind the JFIF segment: Exif, XMP (that of an HDR picture gets one description more) |
| WebP | a chunk at the end, and a flag in the head |
| AVIF | an item that describes the primary one, and its data at the end |

(Sources: ITU-T T.81, annex B; ISO 16684-3; the WebP container; ISO/IEC 14496-12, 8.11; ISO/IEC 23008-12, annex A.)
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

from dream.imaging import mpf
from dream.imaging.avif import boxes_in, inside
from dream.imaging.jpeg_segments import APP1, APP2, START_OF_SCAN, Segment, segment, segments, with_segments
from dream.imaging.xmp import SIGNATURE, packet

__all__ = ["MOST_AROUND_BYTES", "embed"]

#: A file grows by the packet, the Exif, and at most so many bytes around them.
MOST_AROUND_BYTES = 120

_END_OF_PACKET = b"</rdf:RDF>"
#: Flags of the WebP's head.
_HAS_XMP, _HAS_ALPHA = 0x04, 0x10
#: The head of an `iloc` box as libavif writes it: version 0, offsets and lengths of 4 bytes, no base offset.
_ILOC = bytes((0, 0, 0, 0, 0x44, 0))


def embed(path: Path, content_type: str, description: str, exif: bytes) -> int:
    """Put a description and Exif into the file; returns its size in bytes.

    Parameters:
      content_type: `image/jpeg`, `image/webp` or `image/avif`.
      description: an `rdf:Description`.
      exif: for a JPEG only.
    """
    data = path.read_bytes()
    if content_type == "image/jpeg":
        data = _in_jpeg(data, description, exif)
    else:
        xmp = packet([description])
        # A later libavif may write boxes in another way: the picture then stays without the description.
        with suppress(KeyError, StopIteration, ValueError, struct.error):
            data = _in_webp(data, xmp) if content_type == "image/webp" else _in_avif(data, xmp)
    path.write_bytes(data)
    return len(data)


def _in_jpeg(data: bytes, description: str, exif: bytes) -> bytes:
    described = _segment_of(data, APP1, SIGNATURE)
    if described is None:
        xmp = SIGNATURE + packet([description])
    else:
        xmp = data[described.payload : described.end].replace(_END_OF_PACKET, description.encode() + _END_OF_PACKET)
        data = data[: described.start] + data[described.end :]
    data = with_segments(data, (segment(APP1, exif) if exif else b"") + segment(APP1, xmp))
    index = _segment_of(data, APP2, mpf.SIGNATURE)
    if index is None:
        return data
    # The index has the size of the picture. The place of the gain map counts from the index, which is behind the XMP.
    ((offset, size),) = mpf.entries_of(data[index.payload : index.end])
    return data[: index.payload] + mpf.index_of_two(len(data) - size, offset, size) + data[index.end :]


def _segment_of(data: bytes, marker: int, signature: bytes) -> Segment | None:
    """The segment that begins so, before the scan of a JPEG."""
    for found in segments(data):
        if found.marker == START_OF_SCAN:
            break
        if found.marker == marker and data.startswith(signature, found.payload):
            return found
    return None


def _in_webp(data: bytes, xmp: bytes) -> bytes:
    body = bytearray(data[12:])
    if body[:4] != b"VP8X":
        body[:0] = _extended_head(bytes(body))
    body[8] |= _HAS_XMP
    body += b"XMP " + struct.pack("<L", len(xmp)) + xmp + bytes(len(xmp) % 2)
    return b"RIFF" + struct.pack("<L", 4 + len(body)) + b"WEBP" + body


def _extended_head(body: bytes) -> bytes:
    """The VP8X chunk of a file that is a single frame."""
    if body[:4] == b"VP8L":
        (bits,) = struct.unpack_from("<L", body, 9)
        width, height, flags = bits & 0x3FFF, bits >> 14 & 0x3FFF, _HAS_ALPHA * (bits >> 28 & 1)
    else:
        width, height = ((edge & 0x3FFF) - 1 for edge in struct.unpack_from("<HH", body, 14))
        flags = 0
    return b"VP8X" + struct.pack("<LLHBHB", 10, flags, width & 0xFFFF, width >> 16, height & 0xFFFF, height >> 16)


def _in_avif(data: bytes, xmp: bytes) -> bytes:
    top = list(boxes_in(data, 0, len(data)))
    meta = next(box for box in top if box.kind == b"meta")
    parts = {box.kind: data[box.start : box.end] for box in inside(data, top, b"meta", 4)}
    places = _places(parts[b"iloc"])
    item, primary = 1 + max(number for number, *_ in places), int.from_bytes(parts[b"pitm"][4:6], "big")
    kind = _box(b"infe", b"\2\0\0\0" + struct.pack(">HH", item, 0) + b"mimeXMP\0application/rdf+xml\0")
    (count,) = struct.unpack_from(">H", parts[b"iinf"], 4)
    parts[b"iinf"] = parts[b"iinf"][:4] + struct.pack(">H", count + 1) + parts[b"iinf"][6:] + kind
    parts[b"iref"] = parts.get(b"iref", bytes(4)) + _box(b"cdsc", struct.pack(">HHH", item, 1, primary))

    def written(shift: int) -> bytes:
        """The box `meta`, for data that are moved by so many bytes."""
        moved = [(number, place + shift, size) for number, place, size in places]
        parts[b"iloc"] = _iloc([*moved, (item, len(data) + shift + 8, len(xmp))])
        return _box(b"meta", data[meta.start : meta.start + 4] + b"".join(_box(*part) for part in parts.items()))

    before = meta.start - 8
    growth = len(written(0)) - (meta.end - before)
    return data[:before] + written(growth) + data[meta.end :] + _box(b"mdat", xmp)


def _places(iloc: bytes) -> list[tuple[int, int, int]]:
    """Number, place and length of each item; each is in one piece."""
    (count,) = struct.unpack_from(">H", iloc, 6)
    entries = list(struct.iter_unpack(">HHHLL", iloc[8:]))
    if iloc[:6] != _ILOC or len(entries) != count or any(pieces != 1 for _, _, pieces, _, _ in entries):
        raise ValueError("the places of items are not written as by libavif 1")
    return [(number, place, size) for number, _, _, place, size in entries]


def _iloc(places: list[tuple[int, int, int]]) -> bytes:
    entries = (struct.pack(">HHHLL", number, 0, 1, place, size) for number, place, size in places)
    return _ILOC + struct.pack(">H", len(places)) + b"".join(entries)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", 8 + len(content)) + kind + content

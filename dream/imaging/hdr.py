"""Keep a photo's HDR: find the gain map in its file, bring it into the result's shape, and write both into one file.

```
SOI │ JFIF │ XMP: directory │ ISO: version │ MPF: index │ … picture … EOI
SOI │ JFIF │ XMP: numbers   │ ISO: numbers │ … map … EOI
```

A viewer without HDR shows the picture and reads nothing behind it. dream reads gain maps of Ultra HDR, ISO 21496-1 and
Apple, and writes the first two. A damaged map, or one of another shape than its picture, is dropped; the picture stays.
Only pixels and numbers of the uploaded file reach the result.

(Sources: Ultra HDR Image Format 1.1; ISO 21496-1:2025; CIPA DC-007-2021.)
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from dream.errors import ImageRejected
from dream.imaging import mpf, xmp
from dream.imaging.budget import Bounds, Grade, Qualities, search
from dream.imaging.colour import is_srgb
from dream.imaging.content import Content, is_grey
from dream.imaging.crop import Point, box_for
from dream.imaging.damage import RAISED_BY_DECODERS
from dream.imaging.decode import decode, open_image, orientation_of
from dream.imaging.encode import JPEG, Encoded, encode
from dream.imaging.gain_map import (
    GAIN_PROPERTIES,
    ISO_SIGNATURE,
    ISO_VERSION,
    Gains,
    apple_headroom_stops,
    apple_levels,
)
from dream.imaging.jpeg_segments import (
    APP1,
    APP2,
    END_OF_IMAGE,
    START_OF_SCAN,
    Segment,
    segment,
    segments,
    with_segments,
)
from dream.imaging.limits import Limits
from dream.imaging.mapped import Bytes, mapped
from dream.imaging.transform import resize, upright

__all__ = ["LEAST_EDGE_PX", "GainMap", "encode_with", "gain_map_of", "joined", "sharing", "with_map"]

#: Pictures whose longest edge is below this have no gain map.
LEAST_EDGE_PX = 640
#: The formats of results that may have one.
_FORMATS = frozenset({"auto", "jpeg"})
_CENTRE: Point = (0.5, 0.5)
#: A map has about this share of its picture's edges, as phones write it, and at least the second.
_SHARE_OF_EDGES, _LEAST_SHARE_OF_EDGES = 0.5, 0.125
#: The map and all that describes it take at most the first share of the byte budget. A picture that is encoded again
#: for its map leaves the second share, and so many bytes.
_SHARE_OF_BYTES, _LEAST_SHARE_OF_BYTES, _LEAST_BYTES = 0.1, 0.02, 4_000
#: Huffman tables of its own save about the same share when the picture is encoded again; this factor is the margin.
_TIGHTENS_AGAIN = 0.997
_QUALITIES = Qualities(highest=85, lowest=60, lowest_share=0.5)
#: A map may be off its picture's shape by this many of its pixels, or by this share: cameras round to blocks.
_MOST_OFF_PX, _MOST_OFF_SHARE = 2.0, 0.01
#: The most segments of a file to read, and the most pictures behind the first. Each may be as long as the file.
_MOST_SEGMENTS, _MOST_PICTURES = 1000, 16

#: An index of pictures, and the two standards' names in the head of a picture that has a gain map.
_SIGNS = (mpf.SIGNATURE, b"hdrgm", b"urn:iso:std:iso:ts:21496")

_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_APPLE_TYPE, _APPLE_HEADROOM = "apdi:AuxiliaryImageType", "HDRGainMap:HDRGainMapHeadroom"
_APPLE_GAIN_MAP = "urn:com:apple:photo:2020:aux:hdrgainmap"


@dataclass(frozen=True)
class GainMap:
    """A gain map of an upright picture in sRGB.

    Parameters:
      image: its levels, in mode L or RGB, of the picture's shape.
      gains: its numbers.
    """

    image: Image.Image
    gains: Gains


def gain_map_of(file: BinaryIO, opened: ImageFile, limits: Limits) -> GainMap | None:
    """The gain map in the file of a picture, upright; None if it has none that can be kept.

    Parameters:
      file: the file of `opened`. Its position stays.
    """
    formats = {limits.output_format, *(spec.format for spec in limits.variants)}
    if not limits.keeps_hdr or not formats & _FORMATS or not isinstance(opened, JpegImageFile):
        return None
    if opened.mode not in {"L", "RGB"} or max(limits.fit(opened.size)) < LEAST_EDGE_PX:
        return None
    place = file.tell()
    second, numbers = b"", None
    for second in islice(_second_pictures(mapped(file)), _MOST_PICTURES):
        with suppress(*RAISED_BY_DECODERS):
            numbers = _gains_of(second, opened)
        if numbers is not None:
            break
    file.seek(place)
    with suppress(*RAISED_BY_DECODERS, ImageRejected, MemoryError):
        return _decoded(second, *numbers, opened, limits) if numbers is not None else None
    return None


def _second_pictures(data: Bytes) -> Iterator[bytes]:
    """The JPEGs that may be a gain map: those of the file's index, then the one right behind the picture.

    The compressed data of a picture without a sign of a gain map is not searched for its end: that takes 2 ms.
    """
    has_sign = False
    for found in islice(segments(data), _MOST_SEGMENTS):
        if found.marker == START_OF_SCAN and not has_sign:
            return
        payload = data[found.payload : found.end]
        has_sign = has_sign or any(sign in payload for sign in _SIGNS)
        if found.marker == APP2 and payload.startswith(mpf.SIGNATURE):
            with suppress(ValueError):
                for offset, size in mpf.entries_of(payload):
                    start = found.payload + len(mpf.SIGNATURE) + offset
                    if start >= found.end and data[start : start + 3] == b"\xff\xd8\xff":
                        yield data[start : start + size]
        if found.marker == END_OF_IMAGE and data[found.end : found.end + 3] == b"\xff\xd8\xff":
            yield data[found.end :]


def _head(data: bytes) -> Iterator[tuple[Segment, bytes]]:
    """The segments before the scan of a JPEG, with their payloads."""
    for found in islice(segments(data), _MOST_SEGMENTS):
        if found.marker == START_OF_SCAN:
            return
        yield found, data[found.payload : found.end]


def _gains_of(second: bytes, opened: ImageFile) -> tuple[Gains, list[int] | None] | None:
    """The numbers of a second picture, and the level for each of its levels if they must change.

    None if it is no gain map.

    Raises:
      ValueError: it is one, but its numbers have no meaning.
    """
    packet = b""
    for found, payload in _head(second):
        if found.marker == APP2 and payload.startswith(ISO_SIGNATURE):
            with suppress(ValueError):  # of a later version; its XMP may do
                return Gains.of_iso(payload[len(ISO_SIGNATURE) :]), None
        if not packet and found.marker == APP1 and payload.startswith(xmp.SIGNATURE):
            packet = payload[len(xmp.SIGNATURE) :]
    properties = xmp.properties(packet, {*GAIN_PROPERTIES, _APPLE_TYPE, _APPLE_HEADROOM}) if packet else {}
    if "hdrgm:Version" in properties:
        return Gains.of_xmp(properties), None
    if properties.get(_APPLE_TYPE) == [_APPLE_GAIN_MAP]:
        stops = _apple_stops(properties, opened)
        return Gains.of_headroom(stops), apple_levels(stops)
    return None


def _apple_stops(properties: dict[str, list[str]], opened: ImageFile) -> float:
    """The headroom of an Apple photo: as the map says it, or as the picture's maker note does."""
    said = properties.get(_APPLE_HEADROOM)
    if said:
        return math.log2(float(said[0]))
    exif = Image.Exif()
    exif.load(opened.info.get("exif") or b"")
    note = exif.get_ifd(IFD.Exif).get(Base.MakerNote)
    return apple_headroom_stops(note) if isinstance(note, bytes) else 0.0


def _decoded(
    second: bytes, gains: Gains, levels: list[int] | None, opened: ImageFile, limits: Limits
) -> GainMap | None:
    """The map, upright, decoded at about the size that it will have; None if it does not suit the picture.

    Raises:
      ImageRejected: it is damaged, or beyond a limit.
    """
    edge_px = max(1, round(_SHARE_OF_EDGES * max(limits.fit(opened.size))))
    map_limits = replace(limits, max_edge_px=edge_px, max_jpeg_pixels=opened.width * opened.height)
    image = open_image(io.BytesIO(second), map_limits)
    if image.mode not in {"L", "RGB"} or not _has_shape_of(image.size, opened.size):
        return None
    decoded = decode(image, map_limits)
    scale = min(1.0, max(decoded.fitted_px) / max(opened.size))
    width, height = (max(1, round(side * scale)) for side in opened.size)
    pixels = resize(decoded.image, (width, height))
    if pixels.mode == "RGB" and (levels or is_grey(pixels)):
        pixels = pixels.convert("L")
    if levels:
        pixels = pixels.point(levels)
    if gains.has_three_channels:
        pixels = pixels.convert("RGB")
    is_for_srgb = gains.is_for_base_colours and is_srgb(opened.mode, opened.info.get("icc_profile"))
    if pixels.mode == "RGB" and not is_for_srgb:
        return None  # gains of a channel belong to its primary; one gain for all channels suits all primaries
    pixels = upright(pixels, orientation_of(opened))
    pixels.info = {}  # Pillow would write its comment into the result
    return GainMap(pixels, replace(gains, is_for_base_colours=True))


def _has_shape_of(size: tuple[int, int], picture: tuple[int, int]) -> bool:
    width = size[1] * picture[0] / picture[1]
    return abs(size[0] - width) <= max(_MOST_OFF_PX * max(1.0, width / size[1]), _MOST_OFF_SHARE * width)


def sharing(gain_map: GainMap | None, limits: Limits) -> Limits:
    """The limits of a picture that leaves room for its map in the byte budget."""
    return replace(limits, max_bytes=limits.max_bytes - _least_bytes(limits)) if _has_room(gain_map, limits) else limits


def encode_with(
    gain_map: GainMap | None,
    image: Image.Image,
    target: Path,
    limits: Limits,
    content: Content,
    focus: Point = _CENTRE,
) -> Encoded:
    """Write `image` to `target` as `encode` does, and its gain map into the same file if it becomes a large JPEG.

    The map takes the room that the picture leaves. If that is too little, the picture gets tables of its own, which
    keep its pixels; only if this does not help, it is encoded with a smaller budget, and gets tables of its own again.

    Parameters:
      focus: the point of the upright picture that `image` keeps, if it is a part of it.

    Raises:
      ImageRejected: even the smallest picture exceeds the budget.
      OSError: the file could not be written.
    """
    encoded = encode(image, target, limits, content)
    if gain_map is None or not _suits(encoded) or not _has_room(gain_map, limits):
        return encoded
    share, loose_bytes = sharing(gain_map, limits), encoded.size_bytes
    if loose_bytes > share.max_bytes:
        encoded = _tightened(image, encoded, target)
    both = with_map(gain_map, encoded, target, limits, focus)
    if both != encoded or encoded.size_bytes <= share.max_bytes:
        return both
    tightens_by = loose_bytes / encoded.size_bytes
    smaller = replace(limits, max_bytes=int(_TIGHTENS_AGAIN * tightens_by * share.max_bytes))
    encoded = encode(image, target, smaller, content)
    if _suits(encoded):
        encoded = _tightened(image, encoded, target)
    return with_map(gain_map, encoded, target, limits, focus)


def with_map(
    gain_map: GainMap | None, encoded: Encoded, target: Path, limits: Limits, focus: Point = _CENTRE
) -> Encoded:
    """Write the gain map into the file of a picture, if it suits and there is room.

    Parameters:
      encoded: the picture's file, at `target`.
      focus: as for `encode_with`.

    Raises:
      OSError: the file could not be written.
    """
    if gain_map is None or not _suits(encoded):
        return encoded
    left = limits.max_bytes - encoded.size_bytes
    room = min(left, int(_SHARE_OF_BYTES * limits.max_bytes)) - _FIRST_BYTES
    second = _second_picture(gain_map, (encoded.width_px, encoded.height_px), target, room, focus)
    if second:
        target.write_bytes(joined(target.read_bytes(), second))
    return replace(encoded, size_bytes=target.stat().st_size)


def _tightened(image: Image.Image, encoded: Encoded, target: Path) -> Encoded:
    """Encode the same pixels with Huffman tables made for them, which takes 1 to 3.5% fewer bytes."""
    written = JpegImageFile(target)
    tables, sampling = written.quantization, get_sampling(written)
    written.close()
    trial = target.with_name(f"{target.name}~")
    same = resize(image, (encoded.width_px, encoded.height_px))
    same.save(trial, format="JPEG", qtables=tables, subsampling=sampling, optimize=True)
    trial.replace(target)
    return replace(encoded, size_bytes=target.stat().st_size)


def _suits(encoded: Encoded) -> bool:
    is_large = max(encoded.width_px, encoded.height_px) >= LEAST_EDGE_PX
    return is_large and encoded.content_type == JPEG.content_type


def _least_bytes(limits: Limits) -> int:
    return max(_LEAST_BYTES, int(_LEAST_SHARE_OF_BYTES * limits.max_bytes))


def _has_room(gain_map: GainMap | None, limits: Limits) -> bool:
    return gain_map is not None and _least_bytes(limits) <= _SHARE_OF_BYTES * limits.max_bytes


def _second_picture(gain_map: GainMap, size: tuple[int, int], target: Path, most_bytes: int, focus: Point) -> bytes:
    """The file of the map, with all that describes it; none if it would be too small to be of use.

    Parameters:
      size: the result's, in pixels. A result of another shape than the picture is a part of it.
      target: the path of the result; tries go to files beside it.
    """
    image, numbers = gain_map.image, gain_map.gains
    described = segment(APP1, xmp.SIGNATURE + numbers.xmp()) + segment(APP2, ISO_SIGNATURE + numbers.iso())
    box = box_for(image.size, size, focus)
    scale = min(_SHARE_OF_EDGES, (box[2] - box[0]) / size[0])
    small = resize(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), box)
    path = target.with_name(f"{target.name}~map")

    def save(trial: Path, grade: Grade) -> None:
        resize(small, grade.size).save(trial, format="JPEG", quality=grade.quality, subsampling="4:4:4")

    room = most_bytes - len(described)
    if room < 1:
        return b""
    try:
        found = search(Bounds(small.size, max(small.size) / 2, _QUALITIES, room), save, path)
        is_large_enough = max(found.size) >= _LEAST_SHARE_OF_EDGES * max(size)
        return with_segments(path.read_bytes(), described) if is_large_enough else b""
    except ImageRejected:
        return b""
    finally:
        path.unlink(missing_ok=True)


def joined(first: bytes, second: bytes) -> bytes:
    """One file of a picture and its gain map."""
    described = _described(len(second))
    first = with_segments(first, described + segment(APP2, bytes(mpf.INDEX_BYTES)))
    index_at = first.index(described) + len(described) + _SEGMENT_HEAD_BYTES
    index = mpf.index_of_two(len(first), len(first) - index_at - len(mpf.SIGNATURE), len(second))
    return first[:index_at] + index + first[index_at + len(index) :] + second


def _described(second_bytes: int) -> bytes:
    """The segments, without an index, of a picture with a gain map of so many bytes behind it."""
    items = (
        'Item:Semantic="Primary" Item:Mime="image/jpeg"',
        f'Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="{second_bytes}"',
    )
    listed = "".join(f'<rdf:li rdf:parseType="Resource"><Container:Item {item}/></rdf:li>' for item in items)
    directory = (
        f'<rdf:Description rdf:about="" xmlns:Container="{_CONTAINER}" xmlns:Item="{_CONTAINER}item/" '
        f'xmlns:hdrgm="{xmp.NAMESPACES["hdrgm"]}" hdrgm:Version="1.0">'
        f"<Container:Directory><rdf:Seq>{listed}</rdf:Seq></Container:Directory></rdf:Description>"
    )
    return segment(APP1, xmp.SIGNATURE + xmp.packet([directory])) + segment(APP2, ISO_SIGNATURE + ISO_VERSION)


_SEGMENT_HEAD_BYTES = 4
#: The most bytes that `joined` adds to the first picture.
_FIRST_BYTES = len(_described(10**9)) + _SEGMENT_HEAD_BYTES + mpf.INDEX_BYTES

"""Read the boxes of an AVIF: the colour space that it names, which Pillow does not read, and places for `embed.py`.

```
ftyp │ meta: pitm (the item), iprp: ipco (properties), ipma (items of properties) │ moov: trak … stsd: av01: colr │ mdat
```

(Sources: ISO/IEC 14496-12, clauses 4, 8.5.2 and 8.11; ISO/IEC 23008-12, clauses 6.5.5 and 9.3.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL.AvifImagePlugin import AvifImageFile

from dream.imaging.colour_space import ColourSpace, by_code_points
from dream.imaging.mapped import Bytes, mapped

__all__ = ["AvifFile", "Box", "boxes_in", "inside"]

#: The path of boxes to the sample descriptions of a track of pictures.
_TRACK = (b"mdia", b"minf", b"stbl", b"stsd")
#: Bytes of a full box's version and flags, of a list's count, and of a visual sample entry before its boxes.
_FULL, _COUNT, _VISUAL = 4, 4, 78
#: The most boxes to read in one file; real files have some dozens.
_MOST_BOXES = 10_000


class AvifFile(AvifImageFile):
    """An AVIF.

    Parameters:
      colour_space: the colour space of its nclx; None if that names none.
    """

    colour_space: ColourSpace | None = None

    def _open(self) -> None:
        if self.fp is None:
            raise SyntaxError("the file is closed")
        data = mapped(self.fp)
        self.fp.seek(0)
        super()._open()
        self.colour_space = _colour_space(data)


class Box(NamedTuple):
    """A box: its kind, and the begin and end of its content."""

    kind: bytes
    start: int
    end: int


def _colour_space(data: Bytes) -> ColourSpace | None:
    """The colour space of the animation if the brand is `avis`, else of the primary picture."""
    top = list(boxes_in(data, 0, len(data)))
    is_animation = data[8:12] == b"avis"
    try:
        found = _of_tracks(data, top) if is_animation else None
        return found or _of_primary(data, top)
    except struct.error:
        return None


def boxes_in(data: Bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places, up to the first that cannot be parsed."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, head = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            return
        yield Box(data[start + 4 : start + 8], start + head, start + size)
        start += size


def inside(data: Bytes, boxes: list[Box], kind: bytes, skipped: int = 0) -> list[Box]:
    """The boxes in the first of that kind; `skipped` bytes stand before them."""
    box = next((box for box in boxes if box.kind == kind), None)
    return list(boxes_in(data, box.start + skipped, box.end)) if box else []


def _of_tracks(data: Bytes, top: list[Box]) -> ColourSpace | None:
    for track in (box for box in inside(data, top, b"moov") if box.kind == b"trak"):
        boxes = list(boxes_in(data, track.start, track.end))
        for kind in _TRACK:
            boxes = inside(data, boxes, kind, _FULL + _COUNT if kind == b"stsd" else 0)
        found = _first_nclx(data, inside(data, boxes, b"av01", _VISUAL))
        if found is not None:
            return found
    return None


def _of_primary(data: Bytes, top: list[Box]) -> ColourSpace | None:
    meta = inside(data, top, b"meta", _FULL)
    properties = inside(data, meta, b"iprp")
    listed = inside(data, properties, b"ipco")
    item = next((_item(data, box) for box in meta if box.kind == b"pitm"), 0)
    own = {number for box in properties if box.kind == b"ipma" for number in _associated(data, box, item)}
    its = [box for number, box in enumerate(listed, start=1) if number in own]
    if any(box.kind == b"colr" for box in its):
        return _first_nclx(data, its)
    return _first_nclx(data, listed)  # a grid itself has none, its tiles have it


def _item(data: Bytes, pitm: Box) -> int:
    is_long = data[pitm.start]
    (number,) = struct.unpack_from(">L" if is_long else ">H", data, pitm.start + _FULL)
    return int(number)


def _associated(data: Bytes, ipma: Box, wanted: int) -> Iterator[int]:
    """Numbers of the item's properties, counted from 1."""
    version, flags = data[ipma.start], data[ipma.start + 3]
    (entries,) = struct.unpack_from(">L", data, ipma.start + _FULL)
    at = ipma.start + _FULL + _COUNT
    wide = flags & 1
    for _ in range(min(entries, _MOST_BOXES)):
        item, count = struct.unpack_from(">LB" if version else ">HB", data, at)
        at += 5 if version else 3
        numbers = struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, at)
        at += count * (2 if wide else 1)
        if item == wanted:
            yield from (number & (0x7FFF if wide else 0x7F) for number in numbers)


def _first_nclx(data: Bytes, boxes: list[Box]) -> ColourSpace | None:
    for box in boxes:
        if box.kind == b"colr" and data[box.start : box.start + 4] == b"nclx" and box.end - box.start >= 8:
            return by_code_points(*struct.unpack_from(">HH", data, box.start + 4))
    return None

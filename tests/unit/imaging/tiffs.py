"""TIFFs put together by hand: several pictures in a chain and below each other, each with the tags that are wanted."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

__all__ = ["Page", "tiff_of"]

_SHORT, _LONG, _BYTE, _LONG8 = 3, 4, 1, 16
_BYTES = {_BYTE: "B", _SHORT: "H", _LONG: "L", _LONG8: "Q"}


@dataclass
class Page:
    """A picture of a TIFF: RGB, without compression.

    Parameters:
      tags: more of them, with one number or several, or bytes; a number replaces what the picture would say.
      below: pictures that hang below it, as SubIFDs.
    """

    picture: Image.Image
    tags: dict[int, int | tuple[int, ...] | bytes] = field(default_factory=dict)
    below: Sequence[Page] = ()


def tiff_of(*pages: Page, order: str = "<", is_big: bool = False, last_leads_to: int | None = None) -> bytes:
    """The file.

    Parameters:
      order: `<` or `>`.
      last_leads_to: the page that follows the last one, by its number: a loop.
    """
    writer = _Writer(order, is_big)
    starts = [writer.write(page) for page in pages]
    writer.link([*starts, 0 if last_leads_to is None else starts[last_leads_to]])
    return bytes(writer.data)


class _Writer:
    def __init__(self, order: str, is_big: bool) -> None:
        self.order, self.place, self.count = order, "Q" if is_big else "L", "Q" if is_big else "H"
        magic = b"II" if order == "<" else b"MM"
        head = struct.pack(f"{order}HHH", 43, 8, 0) if is_big else struct.pack(f"{order}H", 42)
        self.data = bytearray(magic + head + bytes(8 if is_big else 4))
        self.after: dict[int, int] = {0: len(self.data) - (8 if is_big else 4)}

    def write(self, page: Page) -> int:
        """Append a picture; returns where its directory is."""
        below = tuple(self.write(each) for each in page.below)
        picture = page.picture.convert("RGB")
        pixels = self._append(picture.tobytes())
        tags: dict[int, int | tuple[int, ...] | bytes] = {
            256: picture.width,
            257: picture.height,
            258: (8, 8, 8),
            259: 1,
            262: 2,
            273: pixels,
            277: 3,
            278: picture.height,
            279: picture.width * picture.height * 3,
            **page.tags,
        }
        if below:
            tags[330] = below
        entries = b"".join(self._entry(tag, value) for tag, value in sorted(tags.items()))
        start = self._append(struct.pack(self.order + self.count, len(tags)) + entries)
        self.after[start] = self._append(bytes(struct.calcsize(self.order + self.place)))
        return start

    def link(self, starts: Sequence[int]) -> None:
        for start, following in zip([0, *starts[:-1]], starts, strict=True):
            struct.pack_into(self.order + self.place, self.data, self.after[start], following)

    def _entry(self, tag: int, value: int | tuple[int, ...] | bytes) -> bytes:
        numbers = value if isinstance(value, tuple | bytes) else (value,)
        kind = _BYTE if isinstance(value, bytes) else _SHORT if max(numbers) < 2**16 else _LONG
        packed = struct.pack(f"{self.order}{len(numbers)}{_BYTES[kind]}", *numbers)
        room = struct.calcsize(self.order + self.place)
        if len(packed) > room:
            packed = struct.pack(self.order + self.place, self._append(packed))
        head = struct.pack(f"{self.order}HH{self.place}", tag, kind, len(numbers))
        return head + packed.ljust(room, b"\0")

    def _append(self, data: bytes) -> int:
        start = len(self.data)
        self.data += data
        return start

"""Read single entries of Exif, which has the form of a TIFF's directories, without trust in their counts and places.

A directory may name many thousand values, each as long as the file. So only wanted entries are read, and short ones.

(Sources: TIFF 6.0, section 2; Exif 3.0, 4.6; the BigTIFF design.)
"""

from __future__ import annotations

import math
import struct
from typing import Any

from dream.imaging.mapped import Bytes

__all__ = ["Directory", "decoded", "directory_at", "first_directory"]

_BEGINS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
#: The head of Exif in files that are no TIFF.
_EXIF = b"Exif\0\0"
#: The most entries to read of a directory. Real ones have 10 to 80.
_MOST_ENTRIES = 1_000
#: The most bytes of a text, and the most numbers of an entry.
_LONGEST_TEXT, _MOST_NUMBERS = 4_096, 8
#: Letters of numbers for `struct`, by type; bytes of a value and its letter, of all types.
_LETTERS = {1: "B", 3: "H", 4: "L", 5: "LL", 6: "b", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 13: "L"}
_BIG_LETTERS = {16: "Q", 17: "q", 18: "Q"}
#: Types of bytes: ASCII, undefined, and UTF-8 since Exif 3.0.
_TEXTS = (2, 7, 129)
_TYPES = {
    **{kind: (struct.calcsize(f"<{letter}"), letter) for kind, letter in (_LETTERS | _BIG_LETTERS).items()},
    **dict.fromkeys(_TEXTS, (1, "")),
}


class Directory:
    """A directory; empty if it is not in the file.

    Parameters:
      data: a TIFF.
      at: the place of the directory; 0 for none.
      order, is_big: byte order for `struct`, and whether it is a BigTIFF.
    """

    def __init__(self, data: Bytes = b"", at: int = 0, order: str = "<", is_big: bool = False) -> None:
        self._data, self._order, self._is_big = data, order, is_big
        self._entries: dict[int, tuple[int, int, bytes]] = {}
        head, entry = ("Q", "HHQ8s") if is_big else ("H", "HHL4s")
        try:
            (count,) = struct.unpack_from(order + head, data, at)
        except (struct.error, OverflowError):
            return
        first, entry_bytes = at + struct.calcsize(order + head), struct.calcsize(order + entry)
        last = first + entry_bytes * max(0, min(count, _MOST_ENTRIES, (len(data) - first) // entry_bytes))
        for tag, kind, length, value in struct.iter_unpack(order + entry, data[first:last] if at else b""):
            self._entries.setdefault(tag, (kind, length, value))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def raw(self, tag: int, most_bytes: int = _LONGEST_TEXT) -> bytes:
        """The bytes of an entry; none if it is missing, too long or outside the file."""
        kind, length, value = self._entries.get(tag, (0, 0, b""))
        size = length * _TYPES.get(kind, (0, ""))[0]
        if size > most_bytes:
            return b""
        if size <= len(value):
            return value[:size]
        place = int.from_bytes(value, "little" if self._order == "<" else "big")
        return self._data[place : place + size] if place + size <= len(self._data) else b""

    def text(self, tag: int) -> str:
        """The text of an entry up to its first zero; "" if there is none."""
        return decoded(self.raw(tag).partition(b"\0")[0])

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The numbers of an entry; none if one of them is not finite, as with a denominator of zero."""
        size, letter = _TYPES.get(self._entries.get(tag, (0, 0, b""))[0], (0, ""))
        raw = self.raw(tag, _MOST_NUMBERS * size)
        if not letter or not raw:
            return ()
        found: list[tuple[Any, ...]] = list(struct.iter_unpack(self._order + letter, raw))
        if any(len(each) == 2 and not each[1] for each in found):
            return ()
        values = tuple(each[0] / each[1] if len(each) == 2 else float(each[0]) for each in found)
        return values if all(map(math.isfinite, values)) else ()

    def number(self, tag: int) -> float | None:
        """The only number of an entry."""
        found = self.numbers(tag)
        return found[0] if len(found) == 1 else None

    def below(self, tag: int) -> Directory:
        """The directory that an entry names."""
        return Directory(self._data, int(self.number(tag) or 0), self._order, self._is_big)


def first_directory(data: Bytes) -> Directory:
    """The first directory of a TIFF, or of Exif with or without its own head."""
    while data[: len(_EXIF)] == _EXIF:
        data = data[len(_EXIF) :]
    order, is_big = _BEGINS.get(data[:4], ("", False))
    place = data[8:16] if is_big else data[4:8]
    return directory_at(data, int.from_bytes(place, "little" if order == "<" else "big")) if order else Directory()


def directory_at(data: Bytes, at: int) -> Directory:
    """The directory of a TIFF at a place."""
    order, is_big = _BEGINS.get(data[:4], ("", False))
    return Directory(data, at, order, is_big) if order else Directory()


def decoded(raw: bytes) -> str:
    """Text in UTF-8 or, if it is none, in Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")

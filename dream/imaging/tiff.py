"""Read TIFFs: choose among a file's pictures, and refuse cameras' raw files and damaged pictures.

```
header ─► directory (a preview?) ─► directory ─► …        NewSubfileType: 1 reduced, 2 a page of many, 4 a mask
                └─ SubIFDs ─► directory ─► …
```

Pillow opens the first directory. Files of scanners and editors may begin with a preview; then the picture is in
a later directory, or below the first one. (Sources: TIFF 6.0; Adobe's technical note 1 of 1995 on SubIFDs; the BigTIFF
design; DNG 1.7.)
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL.TiffImagePlugin import TiffImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.libtiff_reports import reports
from dream.imaging.mapped import Bytes, mapped
from dream.imaging.transform import WHITE_IS_ZERO

__all__ = ["TiffFile", "check_tiff"]

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 256, 257, 259, 262
_STRIPS, _TILES, _PAGE_NUMBER, _SUB_IFDS, _DNG_VERSION = 273, 324, 297, 330, 50706
_READ = frozenset(
    {
        *(_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC),
        *(_STRIPS, _TILES, _PAGE_NUMBER, _SUB_IFDS, _DNG_VERSION),
    }
)
#: Bits of NewSubfileType.
_REDUCED, _PAGE, _MASK = 1, 2, 4
#: Values of the older SubfileType: 2 is a reduced picture, 3 a page of many.
_OLD_SUBFILE_TYPES = {2: _REDUCED, 3: _PAGE}
#: Photometric interpretations of sensor data: a colour filter array, and linear raw.
_SENSORS = frozenset({32803, 34892})
#: Compressions of raw files only: Sony, Samsung, Nikon, Kodak, Pentax.
_RAW_COMPRESSIONS = frozenset({32767, 32770, 34713, 65000, 65535})

#: Types of values that are numbers here: SHORT, LONG, IFD, LONG8, IFD8.
_NUMBERS = {3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
#: The most entries to read in all directories. A directory of a real file has 10 to 60.
_MOST_ENTRIES = 200_000
_MOST_SUB_IFDS = 1_000
_MOST_PIECES = 200_000
#: A fax may have one row that is too short or too long among this many.
_ROWS_FOR_AN_ODD_ONE = 100
#: A picture without any mark is a preview of one whose edges are at least this many times as long, in the same shape,
_PREVIEW_SCALE = 2.0
_SAME_SHAPE = 0.03
#: or in any shape if the preview is this small.
_SMALL_PX = 320


class _Directory(NamedTuple):
    """A directory's place in the file, the numbers of its tags, and the number of its strips or tiles."""

    offset: int
    values: dict[int, tuple[int, ...]]
    pieces: int

    def number(self, tag: int) -> int:
        """The tag's first number; 0 if there is none."""
        return next(iter(self.values.get(tag, ())), 0)

    @property
    def size(self) -> tuple[int, int]:
        return self.number(_WIDTH), self.number(_HEIGHT)

    @property
    def pixels(self) -> int:
        return self.number(_WIDTH) * self.number(_HEIGHT)

    @property
    def kind(self) -> int:
        if _NEW_SUBFILE_TYPE in self.values:
            return self.number(_NEW_SUBFILE_TYPE)
        return _OLD_SUBFILE_TYPES.get(self.number(_SUBFILE_TYPE), 0)

    @property
    def is_of_sensor(self) -> bool:
        return (
            _DNG_VERSION in self.values
            or self.number(_PHOTOMETRIC) in _SENSORS
            or self.number(_COMPRESSION) in _RAW_COMPRESSIONS
        )

    def is_preview_of(self, other: _Directory) -> bool:
        """Whether this picture, whose tags do not mark it as reduced, looks like a reduced version of the other."""
        if self.kind & _PAGE or _PAGE_NUMBER in self.values:
            return False
        (width, height), (other_width, other_height) = self.size, other.size
        across, down = other_width / width, other_height / height
        is_same_shape = abs(across / down - 1) <= _SAME_SHAPE + 1 / min(width, height)
        return min(across, down) >= _PREVIEW_SCALE and (is_same_shape or max(self.size) <= _SMALL_PX)


class TiffFile(TiffImageFile):
    """A TIFF that opens as its picture, not as the preview that it may begin with.

    Parameters:
      directory_at: the place of the picture's directory; 0 if it is the first.
    """

    directory_at = 0

    def _open(self) -> None:
        file: Any = self.fp
        data = mapped(file)
        page = _picture(list(_directories(data)))
        file.seek(0)
        if page is None:
            super()._open()
        else:
            self.directory_at = page.offset
            self.fp = _BeginningAt(file, page.offset, is_big=_is_big(data))  # type: ignore[assignment]
            super()._open()
            self.fp = self._fp = file
        if self.tag_v2.get(_PHOTOMETRIC) == 0:
            self.info[WHITE_IS_ZERO] = True

    def load(self) -> Any:
        """Decode, and refuse a picture whose damage libtiff reports.

        Raises:
          ImageRejected: it is damaged.
        """
        if not self.tile:
            return super().load()
        with reports() as wrong:
            pixels = super().load()
        if wrong.errors or wrong.losses or wrong.odd_rows * _ROWS_FOR_AN_ODD_ONE > self.height:
            raise ImageRejected.because(Reason.IMAGE_DAMAGED)
        return pixels


class _BeginningAt:
    """A TIFF's file for Pillow, with a header that names another directory as the first."""

    def __init__(self, file: Any, offset: int, is_big: bool) -> None:
        head: bytes = file.read(8)
        order = "<" if head[:1] == b"I" else ">"
        self._head = head + struct.pack(f"{order}Q", offset) if is_big else head[:4] + struct.pack(f"{order}L", offset)
        self._file = file
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        data: bytes = self._file.read(size)
        head = self._head[at : at + len(data)]
        return head + data[len(head) :]

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def check_tiff(data: Bytes) -> None:
    """Refuse a camera's raw file, and a picture of very many strips or tiles; the decoder judges everything else.

    Raises:
      ImageRejected: the file is one of these, or its directories have too many entries.
    """
    found = list(_directories(data))
    if data[8:10] == b"CR" or any(each.is_of_sensor for each in found):  # Canon's CR2 has a mark behind its header
        raise ImageRejected.because(Reason.RAW_NOT_SUPPORTED)
    page = _picture(found)
    if page is not None and page.pieces > _MOST_PIECES:
        raise ImageRejected.because(Reason.TOO_MANY_PIECES)


def _picture(found: list[_Directory]) -> _Directory | None:
    """The directory of the picture: the first that is whole, unless it is an unmarked preview.

    Parameters:
      found: all directories, those of the chain first.
    """
    sized = [each for each in found if each.pixels]
    whole = [each for each in sized if not each.kind & (_REDUCED | _MASK)]
    if not whole:
        return max(sized, key=lambda each: each.pixels, default=None)
    first = whole[0]
    return max((each for each in whole if first.is_preview_of(each)), key=lambda each: each.pixels, default=first)


def _directories(data: Bytes) -> Iterator[_Directory]:
    """The directories of the chain, then those below them, each once, as far as they can be parsed.

    Raises:
      ImageRejected: they have too many entries.
    """
    order = "<" if data[:1] == b"I" else ">"
    is_big = _is_big(data)
    seen: set[int] = set()
    below: deque[int] = deque()
    entries_left = _MOST_ENTRIES
    try:
        (following,) = struct.unpack_from(f"{order}Q" if is_big else f"{order}L", data, 8 if is_big else 4)
    except struct.error:
        return
    while following or below:
        is_of_chain, start = bool(following), following or below.popleft()
        following = 0
        if start in seen:
            continue
        seen.add(start)
        try:
            directory, entries, after = _directory(data, start, order, is_big)
        except struct.error:
            continue
        sub_directories = directory.values.get(_SUB_IFDS, ())
        entries_left -= 1 + entries + len(sub_directories)
        if entries_left < 0:
            raise ImageRejected.because(Reason.TOO_MANY_PIECES)
        following = after if is_of_chain else 0
        below.extend(sub_directories)
        yield directory


def _directory(data: Bytes, start: int, order: str, is_big: bool) -> tuple[_Directory, int, int]:
    """The directory at a place, the number of its entries, and the place of the next one (0: none).

    Raises:
      struct.error: it does not begin within the file.
    """
    count_format, entry_format, place_format = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHL4s", "L")
    (count,) = struct.unpack_from(order + count_format, data, start)
    entry_bytes = struct.calcsize(order + entry_format)
    first = start + struct.calcsize(order + count_format)
    count = max(0, min(count, (len(data) - first) // entry_bytes))  # decoders read a cut one as far as it goes
    last = first + count * entry_bytes
    values: dict[int, tuple[int, ...]] = {}
    pieces = 0
    for tag, kind, length, value in struct.iter_unpack(order + entry_format, data[first:last]):
        if tag in {_STRIPS, _TILES}:
            pieces = max(pieces, length)
        elif tag in _READ:
            values[tag] = _numbers(data, order, kind, length, value)
    try:
        (after,) = struct.unpack_from(order + place_format, data, last)
    except struct.error:
        after = 0
    return _Directory(start, values, pieces), count, after


def _numbers(data: Bytes, order: str, kind: int, length: int, value: bytes) -> tuple[int, ...]:
    """The numbers of an entry; none if it has none, or if they are outside the file."""
    letter = _NUMBERS.get(kind)
    if letter is None:
        return ()
    read = f"{order}{min(length, _MOST_SUB_IFDS)}{letter}"
    try:
        if struct.calcsize(f"{order}{letter}") * length <= len(value):
            return struct.unpack_from(read, value)
        (place,) = struct.unpack_from(f"{order}{'Q' if len(value) == 8 else 'L'}", value)
        return struct.unpack_from(read, data, place)
    except (struct.error, OverflowError):
        return ()


def _is_big(data: Bytes) -> bool:
    return data[2:4] in {b"+\0", b"\0+"}

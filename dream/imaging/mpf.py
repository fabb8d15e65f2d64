"""Read and write the index of a multi-picture JPEG: the place and the size of each of its pictures.

```
APP2 │ "MPF\\0" │ byte order, 42, place of the index │ index: version, count, entries │ (size, offset) for each picture
                 └ offsets count from here
```

(Source: CIPA DC-007-2021, chapter 5.)
"""

from __future__ import annotations

import struct

__all__ = ["INDEX_BYTES", "SIGNATURE", "entries_of", "index_of_two"]

SIGNATURE = b"MPF\0"

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_VERSION_TAG, _COUNT_TAG, _ENTRIES_TAG = 0xB000, 0xB001, 0xB002
_UNDEFINED, _LONG = 7, 4
_ENTRY_BYTES = 16
#: The attribute of a picture that is shown first; others have none.
_PRIMARY = 0x030000
#: Cameras write two to six pictures.
_MOST_ENTRIES = 16
#: The length of the index that `index_of_two` makes.
INDEX_BYTES = 86


def entries_of(payload: bytes) -> list[tuple[int, int]]:
    """The offset from byte 4 of `payload`, and the size, of each picture after the first; at most 15.

    Parameters:
      payload: the payload of the APP2 segment, with its signature.

    Raises:
      ValueError: the index is damaged.
    """
    data = payload[len(SIGNATURE) :]
    order = _ORDERS.get(data[:4])
    if order is None:
        raise ValueError("the index of a multi-picture file has no byte order")
    try:
        (place,) = struct.unpack_from(order + "L", data, 4)
        (tags,) = struct.unpack_from(order + "H", data, place)
        for number in range(min(tags, _MOST_ENTRIES)):
            tag, _, count, start = struct.unpack_from(order + "HHLL", data, place + 2 + 12 * number)
            if tag == _ENTRIES_TAG:
                held = data[start : start + _ENTRY_BYTES * min(count // _ENTRY_BYTES, _MOST_ENTRIES)]
                every = struct.iter_unpack(order + "LLLHH", held)
                return [(offset, size) for _, size, offset, *_ in every][1:]
    except struct.error as error:
        raise ValueError(f"the index of a multi-picture file is damaged: {error}") from error
    return []


def index_of_two(first_bytes: int, second_offset: int, second_bytes: int) -> bytes:
    """The payload of the APP2 segment for a picture and one behind it.

    Parameters:
      first_bytes, second_bytes: their sizes, the first with this segment.
      second_offset: the place of the second, counted from byte 4 of this payload.
    """
    head = struct.pack(">2sHLH", b"MM", 42, 8, 3)
    entries_at = len(head) + 3 * 12 + 4
    tags = (
        struct.pack(">HHL4s", _VERSION_TAG, _UNDEFINED, 4, b"0100"),
        struct.pack(">HHLL", _COUNT_TAG, _LONG, 1, 2),
        struct.pack(">HHLL", _ENTRIES_TAG, _UNDEFINED, 2 * _ENTRY_BYTES, entries_at),
    )
    entries = struct.pack(">LLLHH", _PRIMARY, first_bytes, 0, 0, 0) + struct.pack(
        ">LLLHH", 0, second_bytes, second_offset, 0, 0
    )
    return SIGNATURE + head + b"".join(tags) + bytes(4) + entries

"""Read a GIF's frames, each as a picture of its own.

```
header │ screen │ colours │ ( extensions │ descriptor │ colours │ blocks of pixels ) × frames │ ;
```

A graphic control extension counts only for the frame after it. Pillow opens the file, gives the number of plays, and
decodes the frames. (Source: GIF89a, clauses 17 to 27.)
"""

from __future__ import annotations

import io
import struct
from functools import partial
from typing import NamedTuple

from PIL.GifImagePlugin import GifImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.frames import Disposal, Frame
from dream.imaging.mapped import Bytes, mapped

__all__ = ["GifFile"]

_SCREEN_BYTES = 13
_DESCRIPTOR_BYTES = 10
_HAS_COLOURS = 0x80
_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_GRAPHIC_CONTROL = 0xF9
_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.RESTORE, 4: Disposal.RESTORE}  # 4 is what some encoders write for 3
#: A graphic control extension: its head, a block of four bytes, and its end.
_CONTROL_BYTES = 8


class _Colours(NamedTuple):
    """A colour table: the flags that announce it, and its bytes."""

    flags: int
    table: bytes


class GifFile(GifImageFile):
    """A GIF.

    Parameters:
      frames: the frames of an animation, or a single one that does not cover the canvas; none where Pillow's picture is
        right.
    """

    frames: tuple[Frame, ...] = ()

    def _open(self) -> None:
        if self.fp is None:
            raise SyntaxError("the file is closed")
        data = mapped(self.fp)
        self.fp.seek(0)
        super()._open()
        frames = tuple(_frames(data))
        if len(frames) > 1 or (frames and frames[0].size != self.size):
            self.frames = frames


def _frames(data: Bytes) -> list[Frame]:
    """The frames up to the end mark, or up to the end of the file.

    Raises:
      ImageRejected: a frame begins and does not end.
    """
    shared, position = _colours(data, 10, _SCREEN_BYTES)
    frames: list[Frame] = []
    control = b""
    while position < len(data) and data[position : position + 1] != _END:
        start = position
        if data[position : position + 1] == _EXTENSION:
            position = _behind_blocks(data, position + 2)
            if data[start + 1 : start + 2] == bytes((_GRAPHIC_CONTROL,)):
                control = data[start:position]
        elif data[position : position + 1] == _IMAGE:
            own, position = _colours(data, start + 9, start + _DESCRIPTOR_BYTES)
            pixels_at = position
            position = _behind_blocks(data, position + 1)
            if position > len(data) or len(data) < start + _DESCRIPTOR_BYTES:
                raise ImageRejected.because(Reason.IMAGE_DAMAGED)
            frames.append(_frame(data, start, own or shared, control, (pixels_at, position)))
            control = b""
        else:  # filling, which decoders skip
            position += 1
    return frames


def _colours(data: Bytes, flags_at: int, start: int) -> tuple[_Colours | None, int]:
    """The colour table that these flags announce, and its end."""
    flags = data[flags_at] if flags_at < len(data) else 0
    if not flags & _HAS_COLOURS:
        return None, start
    end = start + (3 << (flags & 7) + 1)
    return _Colours(flags & (_HAS_COLOURS | 7), data[start:end]), end


def _behind_blocks(data: Bytes, position: int) -> int:
    """The end of a sequence of blocks, after the empty one; if that is missing, a place behind the file's end."""
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1


def _frame(data: Bytes, start: int, colours: _Colours | None, control: bytes, pixels: tuple[int, int]) -> Frame:
    left, top, width, height, flags = struct.unpack("<4HB", data[start + 1 : start + _DESCRIPTOR_BYTES])
    has_control = len(control) >= _CONTROL_BYTES
    disposal = control[3] >> 2 & 7 if has_control else 0
    delay_cs = int.from_bytes(control[4:6], "little") if has_control else 0
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, colours.flags if colours else 0, 0, 0)
    head += (colours.table if colours else b"") + (control[:7] + b"\0" if has_control else b"")
    head += struct.pack("<s4HB", _IMAGE, 0, 0, width, height, flags & ~(_HAS_COLOURS | 7))
    return Frame(
        open=partial(_open_frame, head, data, pixels),
        left=left,
        top=top,
        size=(width, height),
        duration_ms=10.0 * delay_cs,
        disposal=_DISPOSALS.get(disposal, Disposal.KEEP),
        blends=True,
    )


def _open_frame(head: bytes, data: Bytes, pixels: tuple[int, int]) -> GifImageFile:
    """Open a frame as a GIF of its own."""
    return GifImageFile(io.BytesIO(head + data[slice(*pixels)] + _END))

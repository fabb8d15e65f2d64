"""PNGs of the common kinds, decoded by Rust's png crate in less than half the time of Pillow's decoder.

Common are 8 bits a channel in grey, RGB or RGBA, neither interlaced nor animated nor with a colour that stands for
transparency. All others, and all that the crate refuses, are Pillow's: what is damaged ends as it does there.
"""

from __future__ import annotations

from PIL.PngImagePlugin import PngImageFile

__all__ = ["PngFile"]

_COMMON_MODES = frozenset({"L", "RGB", "RGBA"})


class PngFile(PngImageFile):
    """A PNG whose rows come of the crate where they can, and of Pillow's decoder otherwise.

    Header, limits and everything behind the pixels are read by Pillow in either case.
    """

    _rows: memoryview | None = None
    _at = 0

    def load_prepare(self) -> None:
        """Decode, and have Pillow take the rows as they are (a hook of Pillow's, as are the next two)."""
        super().load_prepare()
        self._rows = self._decoded() if self._is_common() else None
        if self._rows is not None:
            self._at = 0
            self.tile = [self.tile[0]._replace(codec_name="raw", args=(self.mode, 0, 1))]

    def load_read(self, read_bytes: int) -> bytes:
        if self._rows is None:
            return super().load_read(read_bytes)
        start, self._at = self._at, self._at + read_bytes
        return self._rows[start : self._at].tobytes()

    def load_end(self) -> None:
        self._rows = None
        super().load_end()

    def _is_common(self) -> bool:
        return (
            self.mode in _COMMON_MODES
            and [tile.args for tile in self.tile] == [self.mode]  # deep or packed channels are named otherwise there
            and not self.info.get("interlace")
            and not self.is_animated
            and "transparency" not in self.info
        )

    def _decoded(self) -> memoryview | None:
        """All rows; None where the crate does not take the file."""
        from kornia_rs.image import Image  # with numpy a fifth of a second, once

        if self.fp is None:
            return None
        self.fp.seek(0)
        try:
            image = Image.decode(self.fp.read(), self.mode)
        except Exception:  # noqa: BLE001 (whatever it is: Pillow says what is wrong with the file)
            return None
        return image.data.data.cast("B") if image.size == self.size else None

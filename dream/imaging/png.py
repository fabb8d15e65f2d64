"""Read a PNG's chunks, and decode the common kinds with Rust's png crate.

The crate takes less than half the time of Pillow's decoder. Common are 8 bits a channel in grey, RGB or RGBA, neither
interlaced nor animated nor with a colour that stands for transparency. Pillow decodes all others, and all files that
the crate refuses, so errors of damaged files are Pillow's.

(Source: PNG 3rd edition, clauses 5 and 11.)
"""

from __future__ import annotations

import io
import mmap
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging.colour_space import SRGB, Chromaticities, ColourSpace, by_chunks, by_code_points
from dream.imaging.frames import Disposal, Frame
from dream.imaging.mapped import Bytes, mapped
from dream.imaging.transform import resize_rows

__all__ = ["PngFile"]

_COMMON_MODES = frozenset({"L", "RGB", "RGBA"})
_OPAQUE_MODES = frozenset({"L", "RGB"})
#: The crate has all rows twice for a moment.
_COPIES = 2
_MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3
#: Least lengths of chunks. Pillow refuses a picture with shorter ones, browsers ignore these.
_LEAST_BYTES = {b"tRNS": 6, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
#: Chunks of an animation; its frames are opened one by one.
_ANIMATING = frozenset({b"acTL", b"fcTL", b"fdAT"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
#: Keywords of texts that Pillow would confuse with other chunks.
_MISLEADING = frozenset(
    b"aspect bbox blend chromaticity default_image disposal dpi duration exif gamma icc_profile interlace loop srgb "
    b"transparency xmp".split()
)
_LONGEST_KEYWORD_BYTES = 79
_PIXELS = frozenset({b"IDAT", b"fdAT"})
_OVER = 1
_CICP_BYTES = 4
#: gAMA and cHRM store numbers multiplied by this.
_CHUNK_UNIT = 100_000
_DISPOSALS = {0: Disposal.KEEP, 1: Disposal.CLEAR, 2: Disposal.RESTORE}


class _Chunk(NamedTuple):
    """A chunk: its kind and its place, which includes length, kind and checksum."""

    kind: bytes
    start: int
    end: int


class _Header(NamedTuple):
    """The fields of IHDR (clause 11.2.1)."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filter: int
    interlace: int


class PngFile(PngImageFile):
    """A PNG whose rows come from the crate if possible, and from Pillow's decoder otherwise.

    Header, limits and everything behind the pixels are read by Pillow in either case, from a file without the chunks
    that mislead it. Pillow sees only the default image of an animation.

    Parameters:
      frames: those of the animation; none for a still picture.
      plays: the number of times that the animation is shown, 0 for ever.
      colours: the statements of its chunks about colours, the strongest first (clause 4.3).
    """

    frames: tuple[Frame, ...] = ()
    plays = 0
    colours: tuple[bytes | ColourSpace, ...] = ()
    _rows: memoryview | None = None
    _at = 0
    _wanted_px: tuple[int, int] | None = None
    _deep_key: tuple[int, ...] | None = None

    def _open(self) -> None:
        if self.fp is None:
            raise SyntaxError("the file is closed")
        data = mapped(self.fp)
        chunks = list(_chunks(data))
        header = _header(data, chunks)
        head = _before_pixels(chunks)
        if header.colour == _PALETTE and b"PLTE" not in head:  # Pillow would open it, and fail at each use
            raise ImageRejected.because(Reason.IMAGE_DAMAGED)
        self.plays, self.frames = _animation(data, header, chunks, head)
        good = [chunk for chunk in chunks if not _misleads(data, chunk)]
        if len(good) < len(chunks):
            self.fp = io.BytesIO(_MAGIC + b"".join(_whole(data, chunk) for chunk in good))
        else:
            self.fp.seek(0)
        super()._open()
        exif = next((chunk for chunk in reversed(good) if chunk.kind == b"eXIf"), None)
        if exif is not None:  # Pillow reads one behind the pixels only in `load`
            self.info["exif"] = b"Exif\0\0" + _payload(data, exif)
        self.colours = _colours(data, head, self.info.get("icc_profile"))
        self.info.pop("transparency", None)
        key = _transparency(data, header, head)
        if isinstance(key, tuple) and header.depth == 16:
            self._deep_key = key
        elif key is not None:
            self.info["transparency"] = key

    def reduce_to(self, size: tuple[int, int]) -> None:
        """Reduce the picture to `size` pixels while it is loaded, if its kind and its mode allow it."""
        self._wanted_px = size

    def load_prepare(self) -> None:
        """Decode, and have Pillow take the rows as they are (a hook of Pillow's, as are the next two)."""
        self._rows = self._decoded() if self._is_common() else None
        if self._rows is not None:
            self._at = 0
            if self._wanted_px and self._wanted_px != self.size and self.mode in _OPAQUE_MODES:
                self._rows = memoryview(resize_rows(self._rows, self.mode, self.size, self._wanted_px).tobytes())
                self._size = self._wanted_px
            self.tile = [self.tile[0]._replace(codec_name="raw", extents=(0, 0, *self.size), args=(self.mode, 0, 1))]
        super().load_prepare()

    def load_read(self, read_bytes: int) -> bytes:
        if self._rows is None:
            return super().load_read(read_bytes)
        start, self._at = self._at, self._at + read_bytes
        return self._rows[start : self._at].tobytes()

    def load_end(self) -> None:
        self._rows = None
        super().load_end()
        if self._deep_key is not None:
            self._resolve(self._deep_key)

    def _is_common(self) -> bool:
        return (
            self.mode in _COMMON_MODES
            and [tile.args for tile in self.tile] == [self.mode]  # it names deep or packed channels otherwise
            and not self.info.get("interlace")
            and "transparency" not in self.info
        )

    def _decoded(self) -> memoryview | None:
        """All rows; None if the crate refuses the file."""
        if self.fp is None:
            return None
        _check_room(_COPIES * self.width * self.height * len(self.mode))
        from kornia_rs.image import Image  # a fifth of a second, once

        self.fp.seek(0)
        try:
            image = Image.decode(self.fp.read(), self.mode)
        except Exception:  # noqa: BLE001 (any error: Pillow then finds the fault of the file)
            return None
        return image.data.data.cast("B") if image.size == self.size else None

    def _resolve(self, key: tuple[int, ...]) -> None:
        """Make one colour of 16 bits a channel transparent. Pillow keeps the upper 8 bits of each channel."""
        if self.fp is None:
            return
        self.fp.seek(0)
        lower = PngImageFile(self.fp)
        lower.tile = [lower.tile[0]._replace(args="RGB;16L")]  # with swapped bytes: the lower 8 bits
        lower.load()
        upper = Image.Image()._new(self.im)
        is_other = Image.new("L", self.size)
        for image, parts in ((upper, [part >> 8 for part in key]), (lower, [part & 255 for part in key])):
            for band, part in zip(image.split(), parts, strict=True):
                is_other = ImageChops.lighter(is_other, band.point([255 * (level != part) for level in range(256)]))
        upper.putalpha(is_other)
        self.im = upper.im
        self._mode = upper.mode


def _check_room(size_bytes: int) -> None:
    """Check that this process may take so much memory; nothing is written to it.

    Libraries in Rust end the process when memory is short.

    Raises:
      MemoryError: it may not.
    """
    try:
        mmap.mmap(-1, size_bytes).close()
    except OSError as error:
        raise MemoryError(f"{size_bytes} bytes") from error


def _chunks(data: Bytes) -> Iterator[_Chunk]:
    """All chunks up to the end of the picture, or of the file; consecutive IDATs come as one."""
    position, pixels_at = len(_MAGIC), 0
    while position < len(data):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IDAT":
            pixels_at = pixels_at or position
        else:
            if pixels_at:
                yield _Chunk(b"IDAT", pixels_at, position)
                pixels_at = 0
            yield _Chunk(kind, position, end)
        position = end
        if kind == b"IEND":
            return
    if pixels_at:
        yield _Chunk(b"IDAT", pixels_at, position)


def _whole(data: Bytes, chunk: _Chunk) -> bytes:
    return data[chunk.start : chunk.end]


def _payload(data: Bytes, chunk: _Chunk) -> bytes:
    """The chunk's data, without length, kind and checksum."""
    return data[chunk.start + 8 : chunk.end - 4]


def _header(data: Bytes, chunks: list[_Chunk]) -> _Header:
    payload = _payload(data, chunks[0]) if chunks and chunks[0].kind == b"IHDR" else b""
    if len(payload) < 13:
        raise SyntaxError("not a PNG file")
    return _Header(*struct.unpack(">IIBBBBB", payload[:13]))


def _before_pixels(chunks: list[_Chunk]) -> dict[bytes, _Chunk]:
    """The chunks that describe the pixels, by kind; of several of a kind the first counts, as in browsers."""
    described: dict[bytes, _Chunk] = {}
    for chunk in chunks:
        if chunk.kind == b"IDAT":
            break
        described.setdefault(chunk.kind, chunk)
    return described


def _misleads(data: Bytes, chunk: _Chunk) -> bool:
    """Whether Pillow would treat this chunk otherwise than browsers do."""
    if chunk.kind in _TEXTS:
        return _keyword(data, chunk)[0] in _MISLEADING
    if chunk.kind == b"iCCP":
        _, zero, method = _keyword(data, chunk)
        return not zero or method[:1] != b"\0"
    return chunk.kind in _ANIMATING or chunk.end - chunk.start - 12 < _LEAST_BYTES.get(chunk.kind, 0)


def _keyword(data: Bytes, chunk: _Chunk) -> tuple[bytes, bytes, bytes]:
    """The keyword or name that a chunk begins with, the zero that ends it, and what follows it."""
    start = chunk.start + 8
    return data[start : min(chunk.end - 4, start + _LONGEST_KEYWORD_BYTES + 2)].partition(b"\0")


def _transparency(data: Bytes, header: _Header, head: dict[bytes, _Chunk]) -> int | bytes | tuple[int, ...] | None:
    """The value of tRNS in Pillow's form: a grey level, a colour, or a palette's alphas; None if it is ignored.

    A key is cut to the picture's depth. A list that is longer than the palette, or before it, is ignored as in libpng.
    """
    chunk = head.get(b"tRNS")
    if chunk is None:
        return None
    alphas = _payload(data, chunk)
    if header.colour == _PALETTE:
        palette = head.get(b"PLTE")
        if palette is None or palette.start > chunk.start:
            return None
        return alphas if len(alphas) <= len(_payload(data, palette)) // 3 else None
    channels = {_GREY: 1, _RGB: 3}.get(header.colour, 0)
    if not channels or len(alphas) < 2 * channels:
        return None
    most = (1 << header.depth) - 1
    levels: tuple[int, ...] = struct.unpack(f">{channels}H", alphas[: 2 * channels])
    key = tuple(level & most for level in levels)
    if header.colour == _RGB:
        return key
    return key[0] if header.depth == 16 else key[0] * (255 // most)


def _colours(data: Bytes, head: dict[bytes, _Chunk], profile: bytes | None) -> tuple[bytes | ColourSpace, ...]:
    """The chunks' statements about colours: cICP alone, else the profile, then sRGB, or else gAMA and cHRM."""
    said = {kind: _payload(data, head[kind]) for kind in (b"cICP", b"sRGB", b"gAMA", b"cHRM") if kind in head}
    if len(said.get(b"cICP", b"")) == _CICP_BYTES:
        primaries, transfer, matrix, is_full = said[b"cICP"]
        space = by_code_points(primaries, transfer, is_narrow=not is_full)
        if space is not None and not matrix:
            return (space,)
    gamma, at = (_fractions(said.get(kind, b"")) for kind in (b"gAMA", b"cHRM"))
    if said.get(b"sRGB"):
        space = SRGB
    else:
        space = by_chunks(gamma[0] if len(gamma) == 1 else None, Chromaticities(*at) if len(at) == 8 else None)
    return tuple(one for one in (profile, space) if one)


def _fractions(payload: bytes) -> list[float]:
    """The numbers of gAMA or cHRM."""
    return [number / _CHUNK_UNIT for (number,) in struct.iter_unpack(">l", payload[: len(payload) // 4 * 4])]


def _animation(
    data: Bytes, header: _Header, chunks: list[_Chunk], head: dict[bytes, _Chunk]
) -> tuple[int, tuple[Frame, ...]]:
    """The animation's number of plays and its frames; no frames for a still picture.

    Raises:
      ImageRejected: its chunks are in a wrong order, or do not fit together.
    """
    control = _payload(data, head[b"acTL"]) if b"acTL" in head else b""
    if len(control) < 8:
        return 0, ()
    count, plays = struct.unpack(">II", control[:8])
    shared = b"".join(_whole(data, head[kind]) for kind in (b"PLTE", b"tRNS") if kind in head)
    told: list[tuple[bytes, list[_Chunk]]] = []
    numbers: list[bytes] = []
    for chunk in chunks:
        if chunk.kind == b"fcTL":
            told.append((_payload(data, chunk), []))
        elif told and chunk.kind in _PIXELS:
            told[-1][1].append(chunk)
        if chunk.kind in {b"fcTL", b"fdAT"}:
            numbers.append(data[chunk.start + 8 : chunk.start + 12])
    if numbers != [number.to_bytes(4, "big") for number in range(len(numbers))] or len(told) < count:
        raise ImageRejected.because(Reason.IMAGE_DAMAGED)
    return plays, tuple(_frame(data, header, shared, *frame) for frame in told[:count])


def _frame(data: Bytes, header: _Header, shared: bytes, control: bytes, pixels: list[_Chunk]) -> Frame:
    """One frame, from its fcTL.

    Raises:
      ImageRejected: it lies outside the picture, or has no pixels.
    """
    if len(control) < 26 or not pixels:
        raise ImageRejected.because(Reason.IMAGE_DAMAGED)
    width, height, left, top, delay, parts, disposal, blend = struct.unpack(">4x4I2H2B", control[:26])
    if not width or not height or left + width > header.width or top + height > header.height:
        raise ImageRejected.because(Reason.IMAGE_DAMAGED)
    own = header._replace(width=width, height=height)
    return Frame(
        open=partial(_open_frame, data, own, shared, pixels),
        left=left,
        top=top,
        size=(width, height),
        duration_ms=1000 * delay / (parts or 100),
        disposal=_DISPOSALS.get(disposal, Disposal.KEEP),
        blends=blend == _OVER,
    )


def _open_frame(data: Bytes, header: _Header, shared: bytes, pixels: list[_Chunk]) -> PngFile:
    """Open a frame as a PNG of its own."""
    parts = [_MAGIC, _chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), shared]
    for chunk in pixels:
        whole = _whole(data, chunk)
        if chunk.kind == b"fdAT":
            if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
                raise ImageRejected.because(Reason.IMAGE_DAMAGED)
            whole = _chunk(b"IDAT", whole[12:-4])
        parts.append(whole)
    return PngFile(io.BytesIO(b"".join((*parts, _chunk(b"IEND", b"")))))


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

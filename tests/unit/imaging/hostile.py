"""Files that are made to harm: bombs, metadata that explodes, things that are two things (and see `many_parts.py`).

`BOMBS` say in their headers that they are huge, `NO_PICTURES` and `BROKEN` must be refused, `ODD` are pictures all the
same, and what becomes of `WILD` is left open, as long as it is one of the two.
"""

from __future__ import annotations

import struct
import zlib

from bare_files import grey_png, tiff
from imaging_pictures import encoded, heic, noise, png, png_chunk, quarters

__all__ = ["BOMBS", "BROKEN", "NO_PICTURES", "ODD", "SECRET", "WILD"]

#: What must never be in a result.
SECRET = b"<script>alert('PRIVATE')</script>"


# --- bombs: a few bytes that say they are billions of pixels


def _patched(data: bytes, after: bytes, skip: int, new: bytes) -> bytes:
    """`data` with `new` written over what lies `skip` bytes behind the first `after`."""
    place = data.index(after) + len(after) + skip
    return data[:place] + new + data[place + len(new) :]


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _size_of_24_bits(width: int, height: int) -> bytes:
    return struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]


def _tiff_of_size(width: int, height: int) -> bytes:
    data = zlib.compress(bytes(1000))
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
    ]
    return tiff([*entries, (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data))]).ljust(200, b"\0") + data


BOMBS: dict[str, bytes] = {
    "png": png(50_000, 50_000, 8, 2, bytes(100)),
    "png, interlaced": png(50_000, 50_000, 8, 2, bytes(100)).replace(b"\x08\2\0\0\0", b"\x08\2\0\0\1"),
    "jpeg": _patched(encoded(quarters(), "JPEG"), b"\xff\xc0", 3, struct.pack(">HH", 65_500, 65_500)),
    "bmp": _patched(encoded(quarters(), "BMP"), b"BM", 16, struct.pack("<ii", 40_000, 40_000)),
    "bmp, upside down": _patched(encoded(quarters(), "BMP"), b"BM", 16, struct.pack("<ii", 40_000, -40_000)),
    "gif": _patched(encoded(quarters(), "GIF"), b"GIF87a", 0, struct.pack("<HH", 60_000, 60_000)),
    "gif, frame beyond its screen": _patched(
        encoded(quarters(), "GIF"), b",\0\0\0\0", 0, struct.pack("<HH", 60_000, 60_000)
    ),
    "webp, lossless": _riff((b"VP8L", b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + bytes(100))),
    "webp, animated": _riff((b"VP8X", b"\2\0\0\0" + _size_of_24_bits(2**24, 2**24)), (b"ANIM", bytes(6))),
    "webp, lossy": _patched(encoded(noise(64, 64), "WEBP"), b"\x9d\x01\x2a", 0, struct.pack("<HH", 16_383, 16_383)),
    "tiff": _tiff_of_size(60_000, 60_000),
    "avif": _patched(encoded(quarters(), "AVIF"), b"ispe", 4, struct.pack(">II", 16_384, 16_384)),
    "heic": _patched(heic(quarters()), b"ispe", 4, struct.pack(">II", 16_384, 16_384)),
    "heic, beyond its decoder": _patched(heic(quarters()), b"ispe", 4, struct.pack(">II", 2**31, 2**31)),
    "avif, beyond its decoder": _patched(encoded(quarters(), "AVIF"), b"ispe", 4, struct.pack(">II", 60_000, 60_000)),
}


# --- no pictures

_ENTITIES = b"".join(b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 10))


def _icon_in_itself() -> bytes:
    """An ICO whose one picture is the file itself."""
    head = struct.pack("<HHH", 0, 1, 1)
    return head + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 22, 0) + bytes(64)


NO_PICTURES: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\xff",
    "zeros": bytes(100_000),
    "text": b"just some text, of a fair length so that nothing is missing",
    "svg with entities": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "ha">' + _ENTITIES + b"]><svg>&l9;</svg>",
    "svg that reads a file": b'<!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg><text>&f;</text></svg>',
    "icon in itself": _icon_in_itself(),
    "pdf": b"%PDF-1.7 and so on",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run",
    "pixmap": b"P6 4 4 255 " + bytes(48),
    "zip": b"PK\x03\x04" + bytes(100),
    "image magick's script": b"push graphic-context\nfill 'url(https://example.com/x.png\"|ls)'\npop graphic-context",
    "archive with a picture's name": b"Rar!\x1a\x07\0picture.jpg",
}


# --- broken, or more than is accepted


def _exif_of_tags(tags: int, tag_bytes: int) -> bytes:
    """A directory whose tags all point to the same bytes."""
    entries = b"".join(struct.pack("<HHLL", tag + 1, 7, tag_bytes, 8) for tag in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(tag_bytes)


def _of_frames(kind: str, frames: int) -> bytes:
    one, other = quarters(8, 8), quarters(8, 8).rotate(180)
    return encoded(one, kind, save_all=True, append_images=[other, one] * (frames // 2), duration=40)


BROKEN: dict[str, bytes] = {
    "png with a huge text": grey_png(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30 * 2**20)))),
    "png with many long texts": grey_png(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20))) * 200),
    "png with two profiles": grey_png(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**19))) * 2),
    "png of no width": png(0, 64, 8, 0, bytes(65 * 64)),
    "png with a chunk of 2 GB": _patched(grey_png(), b"IDAT", -8, b"\x7f\xff\xff\xff"),
    "png of indexes without a palette": png(64, 64, 8, 3, bytes(65 * 64)),
    "png of transparent indexes without a palette": png(64, 64, 8, 3, bytes(65 * 64), png_chunk(b"tRNS", b"\0")),
    "png of 3 bits": png(64, 64, 3, 0, bytes(65 * 64)),
    "jpeg of no height": _patched(encoded(quarters(), "JPEG"), b"\xff\xc0", 3, struct.pack(">HH", 0, 160)),
    "jpeg of 12 bits": _patched(encoded(quarters(), "JPEG"), b"\xff\xc0", 2, b"\x0c"),
    "jpeg without tables": encoded(quarters(), "JPEG").replace(b"\xff\xdb", b"\xff\xee"),
    "gif of no width": _patched(encoded(quarters(), "GIF"), b",\0\0\0\0", 0, struct.pack("<HH", 0, 96)),
    "bmp of an unknown compression": _patched(encoded(quarters(), "BMP"), b"BM", 28, struct.pack("<I", 77)),
    "tiff that lies about its directory": b"II*\0" + struct.pack("<L", 10**9) + bytes(100),
    "tiff with pixels before its beginning": tiff(
        [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 9, 1, 2**32 - 100)]
    ),
    "png of many frames": _of_frames("PNG", 500),
    "webp of many frames": _of_frames("WEBP", 500),
    "gif of many frames": _of_frames("GIF", 500),
    "webp that is empty": _riff(),
    "avif of nothing but a name": struct.pack(">I", 28) + b"ftypavif\0\0\0\0avifmif1miaf",
}


# --- odd, and pictures all the same


def _tiff_in_a_circle() -> bytes:
    """A TIFF whose directory is followed by itself."""
    data = encoded(quarters(), "TIFF")
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    return data[:end] + struct.pack("<L", start) + data[end + 4 :]


def _exif_in_a_circle() -> bytes:
    """Exif whose directories lead to themselves and to each other."""
    entries = [(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)]
    return b"Exif\0\0" + tiff(entries)[:-4] + struct.pack("<L", 8)


ODD: dict[str, bytes] = {
    "jpeg, then html": encoded(quarters(), "JPEG") + SECRET,
    "jpeg, html inside": encoded(quarters(), "JPEG", comment=SECRET, exif=b"Exif\0\0" + SECRET),
    "png, then html": encoded(quarters(), "PNG") + SECRET,
    "png, html inside": grey_png(png_chunk(b"tEXt", b"a\0" + SECRET)),
    "gif, html inside": encoded(quarters(), "GIF", comment=SECRET),
    "webp, html inside": encoded(quarters(), "WEBP", xmp=SECRET, exif=b"Exif\0\0" + SECRET),
    "jpeg and zip": encoded(quarters(), "JPEG") + b"PK\x03\x04" + SECRET + b"PK\5\6" + bytes(18),
    "exif in a circle": encoded(quarters(), "JPEG", exif=_exif_in_a_circle()),
    "exif of many tags, jpeg": encoded(quarters(), "JPEG", exif=b"Exif\0\0" + _exif_of_tags(3_000, 20_000)),
    "exif of many tags, png": grey_png(png_chunk(b"eXIf", _exif_of_tags(60_000, 1_000_000))),
    "exif of many tags, webp": encoded(quarters(), "WEBP", exif=_exif_of_tags(30_000, 100_000)),
    "tiff in a circle": _tiff_in_a_circle(),
    "tiff of many directories": encoded(quarters(8, 8), "TIFF", save_all=True, append_images=[quarters(8, 8)] * 500),
    "jpeg 65,500 wide": encoded(quarters(65_500, 8), "JPEG"),
    "png 65,535 high": encoded(quarters(2, 65_535), "PNG"),
    "gif 65,535 wide": encoded(quarters(65_535, 2), "GIF"),
    "multi-picture jpeg": encoded(quarters(), "MPO", save_all=True, append_images=[quarters(80, 80)]),
    "profile of nothing": encoded(quarters(), "JPEG", icc_profile=bytes(5_000)),
    "profile of 4 GB": encoded(quarters(), "PNG", icc_profile=b"\xff\xff\xff\xff" + bytes(124) + b"\xff" * 5_000),
}


# --- wild: whether it is a picture is for its decoder to say

WILD: dict[str, bytes] = {
    "png of too few rows": png(64, 64, 8, 0, bytes(65 * 20)),
    "jpeg, arithmetic": encoded(noise(64, 64), "JPEG").replace(b"\xff\xc0", b"\xff\xc9"),
    "jpeg, lossless": encoded(noise(64, 64), "JPEG").replace(b"\xff\xc0", b"\xff\xc3"),
    "jpeg, two frames": encoded(quarters(), "JPEG")[:-2] + encoded(quarters(80, 80), "JPEG")[2:],
    "avif, corrupt": encoded(noise(64, 64), "AVIF")[:-400] + bytes(400),
    "webp, corrupt": encoded(noise(64, 64), "WEBP")[:-400] + bytes(400),
    "gif, a frame beyond its screen": _patched(
        encoded(quarters(), "GIF"), b",", 0, struct.pack("<HHHH", 100, 100, 160, 96)
    ),
}

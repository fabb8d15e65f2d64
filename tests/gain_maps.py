"""Photos with gain maps that the tests write, and an independent reader of such files: it shares no code with dream.

Sources: Ultra HDR Image Format 1.1; ISO 21496-1:2025; CIPA DC-007-2021; Apple, "Applying Apple HDR effect to your
photos".
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter
from PIL.ExifTags import GPS, IFD, Base

__all__ = [
    "APPLE_TYPE",
    "Numbers",
    "Photo",
    "apple_light",
    "exif",
    "grainy",
    "iso_of",
    "jpeg",
    "light",
    "map_picture",
    "mpf_of",
    "photo",
    "picture",
    "read",
    "reduced",
    "rendered",
    "segment",
    "segments",
    "three",
    "with_head",
    "xmp_of",
]

Pixels = NDArray[np.float64]

HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
APPLE_TYPE = "urn:com:apple:photo:2020:aux:hdrgainmap"
XMP, ISO = b"http://ns.adobe.com/xap/1.0/\0", b"urn:iso:std:iso:ts:21496:-1\0"


@dataclass(frozen=True)
class Numbers:
    """The numbers of a gain map, the same for each channel unless they are tuples."""

    least: Any = 0.0
    most: Any = 2.0
    gamma: Any = 1.0
    offset: float = 1 / 64
    hdr_offset: float = 1 / 64
    headroom_from: float = 0.0
    headroom_to: float = 2.0


# --- pictures


def picture(width: int = 1600, height: int = 1200) -> Image.Image:
    """A smooth picture: dark at the left, bright at the right, with one bright and one blue corner."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    red, green, blue = 0.15 + 0.75 * x, 0.15 + 0.6 * x * (1 - 0.4 * y), 0.2 + 0.5 * y
    return Image.fromarray((np.stack([red, green, blue], axis=2) * 255).astype(np.uint8))


def grainy(width: int, height: int) -> Image.Image:
    """The same with a photo's grain."""
    grain = Image.effect_noise((width, height), 12).filter(ImageFilter.GaussianBlur(0.7))
    return ImageChops.add(picture(width, height), grain.convert("RGB"), offset=-128)


def map_picture(width: int = 800, height: int = 600, *, mode: str = "L") -> Image.Image:
    """Levels that rise to the right and, less, to the bottom, with a soft bright spot at the top right."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    level = 30 + 90 * x + 50 * y + 80 * np.exp(-(((x - 0.8) / 0.15) ** 2) - ((y - 0.2) / 0.2) ** 2)
    grey = Image.fromarray(level.astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    if mode == "L":
        return grey
    return Image.merge("RGB", (grey, grey.point(lambda each: each * 0.8), grey.point(lambda each: each * 0.6)))


def exif(orientation: int = 1, note: bytes = b"") -> bytes:
    tags = Image.Exif()
    tags[Base.Artist] = "PRIVATE artist"
    tags[Base.Orientation] = orientation
    tags.get_ifd(IFD.GPSInfo)[GPS.GPSMapDatum] = "PRIVATE place"
    if note:
        tags.get_ifd(IFD.Exif)[Base.MakerNote] = note
    return tags.tobytes()


def jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format="JPEG", **{"quality": 95, "subsampling": "4:4:4", **options})
    return out.getvalue()


# --- writing


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def with_head(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def three(value: Any) -> tuple[float, ...]:
    """The number of each channel."""
    return value if isinstance(value, tuple) else (value,) * 3


def xmp_of(numbers: Numbers, extra: str = "") -> bytes:
    """`hdrgm` as attributes, or as lists where each channel has its number."""
    named = {
        "GainMapMin": numbers.least,
        "GainMapMax": numbers.most,
        "Gamma": numbers.gamma,
        "OffsetSDR": numbers.offset,
        "OffsetHDR": numbers.hdr_offset,
        "HDRCapacityMin": numbers.headroom_from,
        "HDRCapacityMax": numbers.headroom_to,
    }
    attributes = " ".join(f'hdrgm:{name}="{each}"' for name, each in named.items() if not isinstance(each, tuple))
    lists = "".join(
        f"<hdrgm:{name}><rdf:Seq>{''.join(f'<rdf:li>{one}</rdf:li>' for one in each)}</rdf:Seq></hdrgm:{name}>"
        for name, each in named.items()
        if isinstance(each, tuple)
    )
    body = f'<rdf:Description xmlns:hdrgm="{HDRGM}" hdrgm:Version="1.0" {attributes} {extra}>{lists}</rdf:Description>'
    return segment(0xE1, XMP + _packet(body))


def _packet(body: str) -> bytes:
    return (
        f'<?xpacket begin="" id="W5M0"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{body}</rdf:RDF>'
        '</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def iso_of(numbers: Numbers, flags: int | None = None, denominator: int = 10_000) -> bytes:
    """The metadata of ISO 21496-1 as an APP2 segment."""
    rows = list(
        zip(*map(three, (numbers.least, numbers.most, numbers.gamma, numbers.offset, numbers.hdr_offset)), strict=True)
    )
    one = len(set(rows)) == 1
    values = [numbers.headroom_from, numbers.headroom_to, *(each for row in rows[: 1 if one else 3] for each in row)]
    head = struct.pack(">HHB", 0, 0, (0x40 if one else 0xC0) if flags is None else flags)
    return segment(
        0xE2, ISO + head + b"".join(struct.pack(">iI", round(each * denominator), denominator) for each in values)
    )


def apple_note(headroom_tag: float, gain_tag: float | None) -> bytes:
    """The maker note of an Apple camera, with these two numbers."""
    values = {33: headroom_tag} | ({} if gain_tag is None else {48: gain_tag})
    at = 14 + 2 + 12 * len(values) + 4
    entries = b"".join(struct.pack(">HHLL", tag, 10, 1, at + 8 * number) for number, tag in enumerate(values))
    fractions = b"".join(struct.pack(">2l", round(value * 100_000), 100_000) for value in values.values())
    return b"Apple iOS\0\0\x01MM" + struct.pack(">H", len(values)) + entries + bytes(4) + fractions


def apple_xmp(headroom: float | None = None) -> bytes:
    said = "" if headroom is None else f"<h:HDRGainMapHeadroom>{headroom}</h:HDRGainMapHeadroom>"
    return segment(
        0xE1,
        XMP
        + _packet(
            '<rdf:Description xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/" '
            f'xmlns:h="http://ns.apple.com/HDRGainMap/1.0/"><apdi:AuxiliaryImageType>{APPLE_TYPE}'
            f"</apdi:AuxiliaryImageType><h:HDRGainMapVersion>65536</h:HDRGainMapVersion>{said}</rdf:Description>"
        ),
    )


def mpf_of(entries: list[tuple[int, int]], order: str = "<", count: int | None = None) -> bytes:
    """The index of a multi-picture file, as an APP2 segment, of (size, offset) for each picture."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    count = 16 * len(entries) if count is None else count
    tags = struct.pack(order + "HHL4s", 0xB000, 7, 4, b"0100")
    tags += struct.pack(order + "HHLL", 0xB001, 4, 1, len(entries))
    tags += struct.pack(order + "HHLL", 0xB002, 7, count, 8 + 2 + 36 + 4)
    rows = b"".join(struct.pack(order + "LLLHH", 0, size, offset, 0, 0) for size, offset in entries)
    return segment(0xE2, b"MPF\0" + mark + struct.pack(order + "LH", 8, 3) + tags + bytes(4) + rows)


@dataclass(frozen=True)
class Photo:
    """The parts of a photo with a gain map."""

    base: bytes
    gain_map: bytes
    with_index: bool = True
    order: str = "<"

    def file(self) -> bytes:
        if not self.with_index:
            return self.base + self.gain_map
        size = len(self.base) + len(mpf_of([(0, 0), (0, 0)]))
        # The index stands first: its offsets count from behind marker, length and "MPF\0", at byte 10 of the file.
        index = mpf_of([(size, 0), (len(self.gain_map), size - 10)], self.order)
        return with_head(self.base, index) + self.gain_map


def photo(
    numbers: Numbers | None = None,
    *,
    form: str = "ultra",
    base: Image.Image | None = None,
    levels: Image.Image | None = None,
    note: bytes = b"",
    orientation: int = 1,
    **options: Any,
) -> Photo:
    """A photo as one of the makers writes it: `ultra` has `hdrgm`, `iso` has ISO 21496-1, `apple` Apple's own."""
    numbers = numbers or Numbers()
    base = base or picture()
    heads = {"ultra": xmp_of(numbers), "iso": iso_of(numbers), "apple": apple_xmp()}
    comment = {"comment": b"PRIVATE comment"}
    second = jpeg(levels or map_picture(), exif=exif(), icc_profile=b"PRIVATE profile", **comment)
    first = jpeg(base, exif=exif(orientation, note), **comment, **options)
    return Photo(first, with_head(second, heads[form]))


# --- reading


@dataclass(frozen=True)
class Read:
    """A file that was read strictly: its parts agree, or reading fails."""

    base: bytes
    gain_map: bytes
    numbers: Numbers


def segments(data: bytes) -> list[tuple[int, int, bytes]]:
    """Marker, place and payload of each segment before the scan."""
    assert data[:2] == b"\xff\xd8"
    found, at = [], 2
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((data[at + 1], at, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def read(data: bytes) -> Read | None:
    """The parts of a file with a gain map, by its index; None if it has no index.

    Index, directory, `hdrgm` and ISO 21496-1 must agree to the byte, and no segment may be there twice.
    """
    heads = segments(data)
    indexes = [(at, payload) for marker, at, payload in heads if marker == 0xE2 and payload.startswith(b"MPF\0")]
    if not indexes:
        assert data.count(ISO) == data.count(HDRGM.encode()) == 0
        return None
    [(at, payload)] = indexes
    assert payload[4:12] == b"MM\0*\0\0\0\x08"
    tags = {tag: (count, value) for tag, _, count, value in struct.iter_unpack(">HHLL", payload[14:50])}
    assert struct.unpack(">H", payload[12:14]) == (3,)
    assert tags[0xB000] == (4, int.from_bytes(b"0100", "big"))
    assert tags[0xB001] == (1, 2)
    count, start = tags[0xB002]
    assert count == 32
    (kind, size, offset, *_), (_, second_size, second_offset, *_) = struct.iter_unpack(
        ">LLLHH", payload[4 + start : 4 + start + 32]
    )
    assert (kind, offset) == (0x030000, 0)
    second_at = at + 8 + second_offset
    assert second_at == size
    assert len(data) == size + second_size
    base, gain_map = data[:size], data[second_at:]
    assert base.endswith(b"\xff\xd9")
    assert gain_map.endswith(b"\xff\xd9")
    assert _directory(base) == [("Primary", None), ("GainMap", str(second_size))]
    assert [payload for marker, _, payload in heads if marker == 0xE2 and payload.startswith(ISO)] == [ISO + bytes(4)]
    by_xmp, by_iso = _xmp_numbers(gain_map), _iso_numbers(gain_map)
    for name in Numbers.__dataclass_fields__:
        assert np.allclose(three(getattr(by_xmp, name)), three(getattr(by_iso, name)), atol=2e-6)
    return Read(base, gain_map, by_iso)


def _root(data: bytes) -> ElementTree.Element:
    [packet] = [payload for marker, _, payload in segments(data) if marker == 0xE1]  # nothing else is there
    assert packet.startswith(XMP)
    return ElementTree.fromstring(packet[len(XMP) :])  # noqa: S314 (written by dream)


def _directory(base: bytes) -> list[tuple[str | None, str | None]]:
    root = _root(base)
    assert any(each.get(f"{{{HDRGM}}}Version") == "1.0" for each in root.iter(f"{{{RDF}}}Description"))
    item = f"{{{CONTAINER}item/}}"
    items = list(root.iter(f"{{{CONTAINER}}}Item"))
    assert [each.get(f"{item}Mime") for each in items] == ["image/jpeg"] * 2
    return [(each.get(f"{item}Semantic"), each.get(f"{item}Length")) for each in items]


def _xmp_numbers(gain_map: bytes) -> Numbers:
    [description] = _root(gain_map).iter(f"{{{RDF}}}Description")
    assert description.get(f"{{{HDRGM}}}Version") == "1.0"
    assert description.get(f"{{{HDRGM}}}BaseRenditionIsHDR") == "False"

    def number(name: str) -> Any:
        said = description.get(f"{{{HDRGM}}}{name}")
        if said is not None:
            return float(said)
        [held] = description.iter(f"{{{HDRGM}}}{name}")
        return tuple(float(each.text or "") for each in held.iter(f"{{{RDF}}}li"))

    names = ("GainMapMin", "GainMapMax", "Gamma", "OffsetSDR", "OffsetHDR", "HDRCapacityMin", "HDRCapacityMax")
    return Numbers(*map(number, names))


def _iso_numbers(gain_map: bytes) -> Numbers:
    [payload] = [payload for marker, _, payload in segments(gain_map) if marker == 0xE2]
    assert payload.startswith(ISO)
    least_version, version, flags = struct.unpack_from(">HHB", payload, len(ISO))
    assert (least_version, version, flags & 0x3F) == (0, 0, 0)
    assert flags & 0x40, "the map is for the colours of its picture"
    held = payload[len(ISO) + 5 :]
    channels = 3 if flags & 0x80 else 1
    assert len(held) == 8 * (2 + 5 * channels)
    values = [above / below for above, below in struct.iter_unpack(">iI", held)]
    rows = [values[start : start + 5] for start in range(2, len(values), 5)]
    columns = [column if channels == 3 else column[0] for column in zip(*rows, strict=True)]
    return Numbers(*columns, *values[:2])


# --- light


def light(image: Image.Image) -> Pixels:
    """Linear light of a picture in sRGB; 1 is its white."""
    share = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _levels(gain_map: Image.Image, size: tuple[int, int]) -> Pixels:
    full = gain_map.resize(size, Image.Resampling.BILINEAR)
    share = np.asarray(full, dtype=np.float64) / 255
    return share[..., None] if share.ndim == 2 else share


def rendered(base: Image.Image, gain_map: Image.Image, numbers: Numbers) -> Pixels:
    """The light on a screen with all the headroom that the map asks for."""
    share = _levels(gain_map, base.size) ** (1 / np.array(three(numbers.gamma)))
    least, most = np.array(three(numbers.least)), np.array(three(numbers.most))
    stops = least + (most - least) * share
    offset, hdr_offset = np.array(three(numbers.offset)), np.array(three(numbers.hdr_offset))
    return (light(base) + offset) * 2**stops - hdr_offset


def apple_light(base: Image.Image, gain_map: Image.Image, headroom: float) -> Pixels:
    """The light of an Apple photo, by Apple's formula."""
    share = _levels(gain_map, base.size)
    linear = np.where(share < 0.081, share / 4.5, ((share + 0.099) / 1.099) ** (1 / 0.45))
    return light(base) * (1 + (headroom - 1) * linear)


def reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The light at a smaller size, each pixel the mean of its area."""
    channels = [Image.fromarray(pixels[..., each].astype(np.float32)) for each in range(3)]
    return np.stack([np.asarray(each.resize(size, Image.Resampling.BOX)) for each in channels], axis=2)

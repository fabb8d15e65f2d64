"""A gain map that is damaged or made to harm is dropped: its picture is processed as if it were not there."""

from __future__ import annotations

import os
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imaging_pictures import run
from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile

from tests import gain_maps
from tests.gain_maps import Numbers, Photo, iso_of, jpeg, map_picture, mpf_of, segment, with_head, xmp_of

BASE = jpeg(gain_maps.picture(900, 660))
LEVELS = jpeg(map_picture(450, 330))
GOOD = with_head(LEVELS, iso_of(Numbers()))


def file(gain_map: bytes, base: bytes = BASE) -> bytes:
    return Photo(base, gain_map).file()


def by_xmp(numbers: Numbers, extra: str = "") -> bytes:
    return file(with_head(LEVELS, xmp_of(numbers, extra)))


def by_iso(numbers: Numbers, flags: int | None = None, denominator: int = 10_000) -> bytes:
    return file(with_head(LEVELS, iso_of(numbers, flags, denominator)))


def indexed(entries: list[tuple[int, int]], count: int | None = None, order: str = ">") -> bytes:
    """A file of this index, and something behind its picture that only the index names."""
    return with_head(BASE, mpf_of(entries, order, count)) + b"film" + GOOD


def xml(text: str) -> bytes:
    return file(with_head(LEVELS, segment(0xE1, gain_maps.XMP + text.encode())))


def of_size(width: int, height: int) -> bytes:
    """The map with another size in its frame header."""
    at = GOOD.index(b"\xff\xc0") + 5
    return GOOD[:at] + struct.pack(">HH", height, width) + GOOD[at + 4 :]


def many_scans() -> bytes:
    progressive = jpeg(map_picture(450, 330), progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    return with_head(progressive[:-2] + progressive[scan:-2] * 150 + b"\xff\xd9", iso_of(Numbers()))


def many_packets() -> bytes:
    """10 MB of XMP that says nothing."""
    return with_head(LEVELS, *[segment(0xE1, gain_maps.XMP + b"<a>" + b"<b/>" * 16_000 + b"</a>")] * 160)


LAUGHS = "".join(f'<!ENTITY l{each} "{f"&l{each - 1};" * 10}">' for each in range(1, 9))
FAR = 2**32 - 1

BAD: dict[str, Callable[[], bytes]] = {
    "the index names a place behind the file": lambda: indexed([(len(BASE), 0), (1000, 10**9)]),
    "the index names the last possible place": lambda: indexed([(FAR, FAR), (FAR, FAR)]),
    "the index names the picture itself": lambda: indexed([(len(BASE), 0), (len(BASE), 0)]),
    "the index names places inside the picture": lambda: indexed([(0, 0), *((5000, at) for at in range(20, 300, 20))]),
    "the index names a place before itself": lambda: indexed([(0, 0), (5000, FAR - 9)]),
    "the index has no bytes for its entries": lambda: indexed([(0, 0)], count=16 * 1000),
    "the index has four thousand entries": lambda: indexed([(0, 0)] + [(10**6, 90)] * 4000),
    "there are indexes without end": lambda: (
        with_head(BASE, *[mpf_of([(0, 0)] + [(10**9, len(BASE) + 5000)] * 15)] * 900) + many_packets()
    ),
    "the index says that it has entries without end": lambda: indexed([(0, 0)] * 3, count=FAR),
    "the index has no byte order": lambda: with_head(BASE, segment(0xE2, b"MPF\0XX*\0" + bytes(80))),
    "the index lies outside": lambda: with_head(BASE, segment(0xE2, b"MPF\0MM\0*" + b"\xff" * 80)),
    "the index is cut": lambda: with_head(BASE, segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03")),
    "the map is cut": lambda: file(GOOD[: len(GOOD) // 2]),
    "the map is cut in its head": lambda: file(GOOD[:200]),
    "the map is noise": lambda: file(GOOD[:700] + random.Random(1).randbytes(30_000)),
    "the map is a PNG": lambda: file(b"\x89PNG\r\n\x1a\n" + GOOD),
    "the map has the pixels of a bomb": lambda: file(of_size(65_500, 65_500)),
    "the map has more pixels than its picture": lambda: file(of_size(900, 661)),
    "the map has no height": lambda: file(of_size(450, 0)),
    "the map has another shape": lambda: file(with_head(jpeg(map_picture(400, 400)), iso_of(Numbers()))),
    "the map lies on its side": lambda: file(with_head(jpeg(map_picture(330, 450)), iso_of(Numbers()))),
    "the map is for print": lambda: file(with_head(jpeg(map_picture(450, 330).convert("CMYK")), iso_of(Numbers()))),
    "the map has scans without end": lambda: file(many_scans()),
    "the map has parts without end": lambda: file(with_head(GOOD, segment(0xFE, b"") * 20_000)),
    "the map has packets without end": lambda: file(many_packets()),
    "the map has no numbers": lambda: file(LEVELS),
    "gamma is no number": lambda: by_xmp(Numbers(gamma="nan")),
    "gamma is nothing": lambda: by_xmp(Numbers(gamma=0)),
    "gamma is negative": lambda: by_xmp(Numbers(gamma=-1)),
    "gamma is nearly nothing": lambda: by_iso(Numbers(gamma=0.0001)),
    "the gain is infinite": lambda: by_xmp(Numbers(most="inf")),
    "the gain is beyond numbers": lambda: by_xmp(Numbers(most="1e999")),
    "the gain is a word": lambda: by_xmp(Numbers(most="much")),
    "the gain is empty": lambda: by_xmp(Numbers(most="")),
    "the gain is too large": lambda: by_xmp(Numbers(most=40)),
    "the most is the least": lambda: by_xmp(Numbers(least=3.0, most=1.0)),
    "there are two channels": lambda: by_xmp(Numbers(most=(1.0, 2.0))),
    "there are a thousand channels": lambda: by_xmp(Numbers(most=(1.0,) * 1000)),
    "the offset is no light": lambda: by_iso(Numbers(offset=-0.5)),
    "there is no headroom": lambda: by_iso(Numbers(headroom_to=0.0)),
    "the headroom shrinks": lambda: by_iso(Numbers(headroom_from=3.0)),
    "a fraction has no denominator": lambda: by_iso(Numbers(least=0, most=0, offset=0, hdr_offset=0), denominator=0),
    "the base picture is HDR": lambda: by_xmp(Numbers(), 'hdrgm:BaseRenditionIsHDR="True"'),
    "the base picture is HDR in ISO": lambda: by_iso(Numbers(), flags=0x44),
    "the numbers are cut": lambda: file(with_head(LEVELS, iso_of(Numbers())[:-20].replace(b"\0\x60", b"\0\x4c", 1))),
    "ISO has a later version": lambda: file(GOOD.replace(gain_maps.ISO + b"\0\0", gain_maps.ISO + b"\0\1")),
    "XML explodes": lambda: xml(f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><x>&l8;</x>'),
    "XML asks for a file": lambda: xml('<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'),
    "XML is deep": lambda: xml("<a>" * 15_000),
    "XML is broken": lambda: xml("<x:xmpmeta"),
    "XML has a strange encoding": lambda: xml('<?xml version="1.0" encoding="UTF-99"?><x/>'),
    "an Apple map has no maker note": lambda: apple(b""),
    "an Apple headroom is nothing": lambda: apple(gain_maps.apple_note(0.5, 20.0)),
    "an Apple note is cut": lambda: apple(gain_maps.apple_note(1.0, 0.0)[:30]),
    "an Apple note divides by nothing": lambda: apple(
        gain_maps.apple_note(1.0, 0.0).replace(struct.pack(">l", 100_000), bytes(4))
    ),
    "an Apple note has tags without end": lambda: apple(b"Apple iOS\0\0\x01MM\xff\xff" + bytes(100)),
    "an Apple map says nothing": lambda: file(with_head(LEVELS, gain_maps.apple_xmp(0.0))),
    "an Apple map darkens": lambda: file(with_head(LEVELS, gain_maps.apple_xmp(0.25))),
    "an Apple map says no number": lambda: file(with_head(LEVELS, gain_maps.apple_xmp(float("nan")))),
}


def apple(note: bytes) -> bytes:
    photo = gain_maps.photo(form="apple", base=gain_maps.picture(900, 660), levels=map_picture(450, 330), note=note)
    return photo.file()


def seen(folder: Path) -> Image.Image:
    image = JpegImageFile(folder / "target")
    image.load()
    return image


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_bad_map_is_dropped_and_its_picture_stays(tmp_path: Path, name: str) -> None:
    data = BAD[name]()
    before_s, before_kib = os.times().user, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    processed, _ = run(tmp_path, data)
    assert os.times().user - before_s < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100 * 1024
    result = (tmp_path / "target").read_bytes()
    assert gain_maps.read(result) is None
    assert b"PRIVATE" not in result
    _, plain = run(tmp_path, data, keeps_hdr=False)
    assert ImageChops.difference(plain, seen(tmp_path)).getbbox() is None
    assert max(processed.width_px, processed.height_px) >= 640


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flipped_bytes_in_index_and_map_never_reject_the_picture(
    tmp_path: Path, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(file(GOOD))
    index = len(mpf_of([(0, 0), (0, 0)])) - 4  # behind its marker and length
    places = [*range(6, 6 + index), *range(len(data) - len(GOOD), len(data))]
    for share, value in flips:
        data[places[int(share**3 * (len(places) - 1))]] = value  # most of them in the heads
    run(tmp_path, bytes(data))


def test_the_good_map_of_these_tests_is_kept(tmp_path: Path) -> None:
    """The hostile maps of these tests are dropped for their fault, and for nothing else."""
    for data in (file(GOOD), by_xmp(Numbers()), indexed([(0, 0), (len(GOOD), behind_the_film())])):
        run(tmp_path, data)
        assert gain_maps.read((tmp_path / "target").read_bytes()) is not None


def behind_the_film() -> int:
    return len(BASE) + len(mpf_of([(0, 0), (0, 0)])) + len(b"film") - 10

"""Facts about a photo are read from every format, make sense, and are in no result."""

from __future__ import annotations

import pickle
import resource
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from described import KINDS, file_of, photo_exif, xmp_of
from hypothesis import given
from hypothesis import strategies as st
from imaging_pictures import noise, png_chunk, quarters, run

from dream.imaging.exif import first_directory
from dream.imaging.facts import facts_of
from dream.imaging.metadata import Metadata

ALL = {
    "taken_at": "2024-05-06T07:08:09.120+02:00",
    "latitude": -33.8569,
    "longitude": 151.2151,
    "altitude_m": -3.5,
    "make": "Dreamer",
    "model": "D1",
    "lens": "Glass 4.2mm f/1.6",
    "focal_length_mm": 4.2,
    "exposure_s": 0.008,
    "f_number": 1.6,
    "iso": 64,
}
XMP_ONLY = xmp_of(
    "<exif:ISOSpeedRatings><rdf:Seq><rdf:li>400</rdf:li></rdf:Seq></exif:ISOSpeedRatings><tiff:Make>Dreamer</tiff:Make>",
    'exif:DateTimeOriginal="2020-01-02T03:04:05Z" exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,17,40.2W" '
    'exif:GPSAltitude="35/1" exif:GPSAltitudeRef="0" exif:FocalLength="50/1" aux:Lens="Old glass"',
)
FROM_XMP = {
    "taken_at": "2020-01-02T03:04:05+00:00",
    "latitude": 48.858333,
    "longitude": -2.2945,
    "altitude_m": 35.0,
    "make": "Dreamer",
    "lens": "Old glass",
    "focal_length_mm": 50.0,
    "iso": 400,
}


def read(exif: Any = None, xmp: bytes = b"") -> dict[str, Any]:
    """The facts of this metadata."""
    directory = first_directory(exif.tobytes() if hasattr(exif, "tobytes") else exif or b"")
    return dict(facts_of(Metadata(exif=directory, xmp=xmp), "all") or {})


@pytest.mark.parametrize("kind", KINDS)
def test_exif_of_every_format_is_read(tmp_path: Path, kind: str) -> None:
    processed, _ = run(tmp_path, file_of(quarters(), kind, photo_exif()), keep_facts="all")
    assert processed.facts == ALL


@pytest.mark.parametrize("kind", KINDS)
def test_xmp_of_every_format_fills_the_gaps(tmp_path: Path, kind: str) -> None:
    processed, _ = run(tmp_path, file_of(quarters(), kind, xmp=XMP_ONLY), keep_facts="all")
    assert processed.facts == FROM_XMP


def test_exif_counts_more_than_xmp() -> None:
    assert read(photo_exif(), XMP_ONLY) == ALL
    assert read(photo_exif(LensModel=None, GPSLatitude=None), XMP_ONLY) == {
        **ALL,
        **{name: FROM_XMP[name] for name in ("latitude", "longitude", "altitude_m", "lens")},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_wanted_facts_are_kept_and_the_file_has_none(tmp_path: Path, kind: str) -> None:
    """Neither does the text that errors and logs could show of the description."""
    data = file_of(quarters(), kind, photo_exif(), XMP_ONLY)
    for wanted, facts in (("none", None), ("taken_at", {"taken_at": ALL["taken_at"]})):
        processed, out = run(tmp_path, data, keep_facts=wanted)
        assert processed.facts == facts
    processed, out = run(tmp_path, data, keep_facts="all")
    assert not {"exif", "xmp", "photoshop"} & out.info.keys()
    assert not any(word in (tmp_path / "target").read_bytes() for word in (b"Dreamer", b"2024", b"2020-01"))
    assert "Dreamer" not in repr(processed)
    assert pickle.loads(pickle.dumps(processed)) == processed  # noqa: S301


def test_a_png_may_have_its_exif_behind_its_pixels(tmp_path: Path) -> None:
    data, exif = file_of(noise(64, 48), "PNG"), photo_exif().tobytes().removeprefix(b"Exif\0\0")
    end = data.rindex(b"IEND") - 4
    processed, _ = run(tmp_path, data[:end] + png_chunk(b"eXIf", exif) + data[end:], keep_facts="all")
    assert processed.facts == ALL


@pytest.mark.parametrize(
    ("changed", "taken_at"),
    [
        ({"OffsetTimeOriginal": None}, "2024-05-06T07:08:09.120"),
        ({"SubsecTimeOriginal": None, "OffsetTimeOriginal": "-09:30"}, "2024-05-06T07:08:09-09:30"),
        ({"OffsetTimeOriginal": "+19:00"}, "2024-05-06T07:08:09.120"),
        ({"OffsetTimeOriginal": "somewhere"}, "2024-05-06T07:08:09.120"),
        ({"SubsecTimeOriginal": "x" * 900}, "2024-05-06T07:08:09+02:00"),
        ({"DateTimeOriginal": "0000:00:00 00:00:00"}, None),
        ({"DateTimeOriginal": "    :  :     :  :  "}, None),
        ({"DateTimeOriginal": "2023:02:29 00:00:00"}, None),
        ({"DateTimeOriginal": "1500:01:01 00:00:00"}, None),
        ({"DateTimeOriginal": "9999:12:31 23:59:59"}, None),
        ({"DateTimeOriginal": "٢٠٢٤:01:01 00:00:00".encode()}, None),
        (
            {"DateTimeOriginal": "0000:00:00 00:00:00", "DateTimeDigitized": "1999:12:31 23:59:59"},
            "1999-12-31T23:59:59",
        ),
        ({"DateTimeOriginal": None, "DateTime": "2024:01:01 00:00:00"}, None),  # an editor's
    ],
)
def test_a_time_makes_sense_or_is_left_out(changed: dict[str, Any], taken_at: str | None) -> None:
    assert read(photo_exif(**changed)).get("taken_at") == taken_at


def test_a_clock_may_be_ahead_by_time_zones_only() -> None:
    for ahead, is_kept in ((timedelta(hours=20), True), (timedelta(days=3), False)):
        text = f"{datetime.now(UTC) + ahead:%Y:%m:%d %H:%M:%S}"
        assert ("taken_at" in read(photo_exif(DateTimeOriginal=text))) is is_kept


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"GPSLatitudeRef": "N", "GPSAltitudeRef": b"\0"}, (33.8569, 151.2151, 3.5)),
        ({"GPSLatitude": (33.8569, 0.0, 0.0)}, (-33.8569, 151.2151, -3.5)),
        ({"GPSAltitude": None}, (-33.8569, 151.2151, None)),
        ({"GPSAltitude": 9e8}, (-33.8569, 151.2151, None)),
        ({"GPSMapDatum": "WGS-84"}, (-33.8569, 151.2151, -3.5)),
        ({"GPSMapDatum": "TOKYO"}, (None, None, None)),
        ({"GPSStatus": "V"}, (None, None, None)),
        ({"GPSLatitude": (91.0, 0.0, 0.0)}, (None, None, None)),
        ({"GPSLongitude": (180.0, 0.0, 1.0)}, (None, None, None)),
        ({"GPSLatitude": (33.0, 61.0, 0.0)}, (None, None, None)),
        ({"GPSLatitudeRef": "X"}, (None, None, None)),
        ({"GPSLatitudeRef": None}, (None, None, None)),
        ({"GPSLatitude": (0.0, 0.0, 0.0), "GPSLongitude": (0.0, 0.0, 0.0)}, (None, None, None)),
    ],
)
def test_a_place_makes_sense_or_is_left_out(changed: dict[str, Any], place: tuple[float | None, ...]) -> None:
    facts = read(photo_exif(**changed))
    assert tuple(facts.get(name) for name in ("latitude", "longitude", "altitude_m")) == place


# --- hostile


def tiff(*entries: tuple[int, int, int, bytes], behind: bytes = b"") -> bytes:
    """Exif of one directory: tag, type, count and value or place of each entry."""
    body = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + body + bytes(4) + behind


def place(at: int) -> bytes:
    return struct.pack("<L", at)


BEHIND_TWO = 8 + 2 + 2 * 12 + 4


@pytest.mark.parametrize(
    "exif",
    [
        tiff((0x8769, 4, 1, place(8)), (0x8825, 4, 1, place(8))),  # a circle
        tiff((0x8769, 4, 1, place(2**32 - 1)), (0x010F, 2, 2**32 - 1, place(8))),
        tiff((0x010F, 2, 2**31, place(8)), (0x0110, 2, 3, place(2**31))),
        tiff((0x8769, 13, 0, place(0)), (0x010F, 99, 4, b"abcd")),
        tiff((0x8769, 11, 1, struct.pack("<f", float("nan"))), (0x8825, 11, 1, struct.pack("<f", -1e30))),
        b"Exif\0\0" * 1000,
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II+\0" + b"\xff" * 40,
    ],
)
def test_directories_that_lead_nowhere_have_no_facts(exif: bytes) -> None:
    assert read(exif) == {}


@pytest.mark.parametrize("value", [(0, 0), (1, 0), (2**32 - 1, 1), (1, 2**32 - 1)])
def test_numbers_that_are_none_are_left_out(value: tuple[int, int]) -> None:
    """A zero denominator, an exposure of a century, an aperture of nothing."""
    numbers = b"".join(struct.pack("<LL", *value) for _ in range(3))
    entries = tiff((0x829A, 5, 1, place(74)), (0x829D, 5, 1, place(74)), (0x920A, 5, 1, place(74)), behind=b"")
    inner = entries.removeprefix(b"Exif\0\0")[8:]  # the directory, below another one
    exif = tiff((0x8769, 4, 1, place(26))) + inner
    exif = exif.ljust(6 + 74, b"\0")[: 6 + 74] + numbers
    assert read(exif) == {}


def test_floats_that_are_none_are_left_out() -> None:
    for bad in (float("nan"), float("inf"), -1.0):
        inner = struct.pack("<HHHL4s", 1, 0x829A, 11, 1, struct.pack("<f", bad)) + bytes(4)
        assert read(tiff((0x8769, 4, 1, place(26))) + inner) == {}


def test_megabytes_of_text_and_unseen_characters_are_left_out() -> None:
    assert "make" not in read(photo_exif(Make="x" * 2_000_000))
    assert "make" not in read(photo_exif(Make="x" * 129))
    assert read(photo_exif(Make="  a\r\n\tb\x1b[31m\x7f "))["make"] == "a b [31m"
    assert read(photo_exif(Make="ab\u202ecd".encode()))["make"] == "ab cd"
    assert "make" not in read(xmp=xmp_of(f"<tiff:Make>{'y' * 5000}</tiff:Make>"))


BOMB = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {'abcdefghij'[n]} '{('&' + 'abcdefghij'[n - 1] + ';') * 20}'>" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "xmp",
    [
        xmp_of("<tiff:Make>&j;</tiff:Make>", before=f"{BOMB}]>"),
        xmp_of("<tiff:Make>&x;</tiff:Make>", before='<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        xmp_of("<tiff:Make>" * 100_000),
        xmp_of("<a/>" * 200_000 + "<tiff:Make>late</tiff:Make>"),
        xmp_of("<xmpMM:Pantry><rdf:Bag><rdf:li><rdf:Description tiff:Make='other'/></rdf:li></rdf:Bag></xmpMM:Pantry>"),
        xmp_of(" ".join(f"<a{n} b='c'/>" for n in range(100_000))),
        b"<" * 1_000_000,
        b"\0" * 1_000_000,
        xmp_of("<tiff:Make>large</tiff:Make>" + " " * 2**20),
        xmp_of().decode().encode("utf-16"),
        xmp_of("<tiff:Make>broken</tiff:Make></wrong>"),
    ],
)
def test_xmp_that_explodes_is_given_up_soon(xmp: bytes) -> None:
    """No entity is expanded, no file is read, no part of another picture counts."""
    before_s, before_kib = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(xmp=xmp) == {}
    assert time.process_time() - before_s < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50 * 1024


@given(st.binary(max_size=400))
def test_any_bytes_are_metadata_or_none(data: bytes) -> None:
    read(b"II*\0" + data, xmp_of(data.decode("latin-1").replace("<", "&lt;")))
    read(b"II+\0" + data, data)
    read(photo_exif().tobytes()[: len(data)] + data, xmp_of()[: len(data)] + data)

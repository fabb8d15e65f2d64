"""A JPEG that is good as it is keeps its pixels bit for bit, and loses what is private."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from imaging_pictures import encoded, noise, quarters, run
from PIL import Image, ImageCms
from PIL.ExifTags import GPS, IFD, Base
from PIL.JpegImagePlugin import JpegImageFile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[Base.Artist] = "PRIVATE artist"
    tags[Base.Orientation] = orientation
    tags.get_ifd(IFD.GPSInfo)[GPS.GPSMapDatum] = "PRIVATE place"
    return tags


def jpeg(**options: Any) -> bytes:
    """A JPEG at a quality that the engine itself would not choose, so that a new encoding is seen."""
    defaults = {"quality": 97, "subsampling": "4:4:4", "exif": exif(), "comment": b"PRIVATE comment"}
    return encoded(options.pop("picture", quarters()), "JPEG", **{**defaults, **options})


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def is_kept(data: bytes, folder: Path, **limits: Any) -> bool:
    """Whether the result has the very pixels of the file; in any case nothing private is left."""
    _, out = run(folder, data, **limits)
    assert b"PRIVATE" not in (folder / "target").read_bytes()
    source = JpegImageFile(io.BytesIO(data))  # not as a multi-picture file
    return out.mode == source.mode and out.size == source.size and out.tobytes() == source.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"icc_profile": SRGB},
        {"picture": quarters().convert("L")},
        {"xmp": b"PRIVATE words"},
        {"picture": quarters(8, 8)},
    ],
)
def test_an_upright_srgb_jpeg_is_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    data = jpeg(**options)
    assert b"PRIVATE" in data
    assert is_kept(data, tmp_path)


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"exif": exif(orientation=6)}, {}),
        ({"picture": quarters().convert("CMYK")}, {}),
        ({}, {"max_edge_px": 100}),
        ({"picture": noise(200, 200)}, {"max_bytes": 20_000}),
        ({}, {"output_format": "webp"}),
    ],
)
def test_any_other_is_encoded_anew(tmp_path: Path, options: dict[str, Any], limits: dict[str, Any]) -> None:
    assert not is_kept(jpeg(**options), tmp_path, **limits)


def test_every_private_segment_and_all_that_follows_the_picture_is_cut(tmp_path: Path) -> None:
    """Vendors' segments, a thumbnail in JFIF, profiles, previews and films behind the picture."""
    plain = jpeg(exif=b"", comment=b"", icc_profile=SRGB)
    jfif = plain[2:20]
    assert jfif[4:8] == b"JFIF"
    with_thumbnail = segment(0xE0, jfif[4:16] + bytes((3, 4)) + b"PRIVATE thumbnail".ljust(36))
    private = b"".join(segment(marker, b"PRIVATE data") for marker in (*range(0xE1, 0xF0), 0xFE))
    multi_picture = segment(0xE2, b"MPF\0PRIVATE")
    data = plain[:2] + with_thumbnail + private + multi_picture + b"\xff\xff" + plain[20:] + plain + b"PRIVATE film"
    assert is_kept(data, tmp_path)
    out = (tmp_path / "target").read_bytes()
    assert out.count(b"\xff\xd8\xff") == 1
    assert out == jpeg(exif=b"", comment=b"")


def test_it_may_be_larger_than_the_budget_with_what_is_cut(tmp_path: Path) -> None:
    data = jpeg(picture=noise(100, 100), comment=b"PRIVATE" * 9_000)
    assert is_kept(data, tmp_path, max_bytes=40_000)


def test_variants_and_colours_are_made_of_it_all_the_same(tmp_path: Path) -> None:
    processed, _ = run(tmp_path, jpeg(picture=Image.new("RGB", (900, 600), (220, 40, 40))))
    assert (processed.width_px, processed.height_px) == (900, 600)
    assert processed.placeholder
    assert processed.dominant_colour is not None
    assert processed.dominant_colour.startswith("#dc")


PRIVATE = b"PRIVATE"


def with_private_runs(data: bytes, number: int, private: bytes = PRIVATE) -> bytes:
    """The JPEG with private bytes behind the last pixel of one of its runs: before a restart, or the end."""
    start = data.index(b"\xff\xda")
    ends = [found.start() for found in re.finditer(rb"\xff[\x01-\xfe]", data[start + 2 :])]
    end = start + 2 + ends[number]
    return data[:end] + private + data[end:]


@pytest.mark.parametrize(
    "private", [PRIVATE, b"P", PRIVATE * 100, b"PRIVATE\xff\0PRIVATE", b"\0" * 20 + PRIVATE, b"\xff\0" * 9]
)
def test_bytes_between_the_last_pixel_and_the_end_do_not_come_out(tmp_path: Path, private: bytes) -> None:
    data = with_private_runs(jpeg(exif=b"", comment=b""), -1, private)
    assert not is_kept(data, tmp_path)
    assert private not in (tmp_path / "target").read_bytes() or len(private) == 1


@pytest.mark.parametrize("number", [0, 10, 50])
def test_bytes_before_a_restart_do_not_come_out(tmp_path: Path, number: int) -> None:
    data = jpeg(restart_marker_blocks=2, exif=b"", comment=b"")
    assert is_kept(data, tmp_path)
    (tmp_path / "target").unlink()
    assert not is_kept(with_private_runs(data, number), tmp_path)


@pytest.mark.parametrize("number", [0, 1, 2, -1])
def test_bytes_between_scans_do_not_come_out(tmp_path: Path, number: int) -> None:
    data = jpeg(progressive=True, exif=b"", comment=b"")
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    place = [*scans[1:], len(data) - 2][number]
    before = data.rfind(b"\xff\xc4", scans[0], place)  # the table that the next scan begins with
    end = before if before > max(scan for scan in scans if scan < place) else place
    assert not is_kept(data[:end] + PRIVATE + data[end:], tmp_path)


def test_a_profile_that_does_what_srgb_does_goes_with_its_private_tags(tmp_path: Path) -> None:
    profile = SRGB.replace(b"sRGB", b"priv") + b"PRIVATE"
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    assert is_kept(jpeg(icc_profile=profile), tmp_path)
    assert b"ICC_PROFILE" not in (tmp_path / "target").read_bytes()


def test_filling_before_the_end_goes(tmp_path: Path) -> None:
    data = jpeg(exif=b"", comment=b"")
    assert is_kept(data[:-2] + b"\xff" * 9 + data[-2:], tmp_path)
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize(
    "tables",
    [
        segment(0xDB, b"\x03" + PRIVATE.ljust(64, b"x")),
        segment(0xC4, b"\x13" + bytes((*[0] * 7, len(PRIVATE), *[0] * 8)) + PRIVATE),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_tables_that_nothing_uses_go(tmp_path: Path, tables: bytes, progressive: bool) -> None:
    plain = jpeg(exif=b"", comment=b"", progressive=progressive)
    assert is_kept(plain[:2] + tables + plain[2:], tmp_path)
    assert (tmp_path / "target").read_bytes() == plain

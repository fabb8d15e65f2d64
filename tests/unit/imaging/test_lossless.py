"""A JPEG that is good as it is keeps its pixels bit for bit, and loses what is private."""

from __future__ import annotations

import io
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
    """Vendors' segments, a thumbnail in JFIF, previews and films behind the picture; the profile stays."""
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
    assert Image.open(io.BytesIO(out)).info["icc_profile"] == SRGB
    assert out == jpeg(exif=b"", comment=b"", icc_profile=SRGB)


def test_it_may_be_larger_than_the_budget_with_what_is_cut(tmp_path: Path) -> None:
    data = jpeg(picture=noise(100, 100), comment=b"PRIVATE" * 9_000)
    assert is_kept(data, tmp_path, max_bytes=40_000)


def test_variants_and_colours_are_made_of_it_all_the_same(tmp_path: Path) -> None:
    processed, _ = run(tmp_path, jpeg(picture=Image.new("RGB", (900, 600), (220, 40, 40))))
    assert (processed.width_px, processed.height_px) == (900, 600)
    assert processed.placeholder
    assert processed.dominant_colour is not None
    assert processed.dominant_colour.startswith("#dc")

"""Pictures come out upright, whatever way their camera was held."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from imaging_pictures import BLUE, GREEN, RED, YELLOW, encoded, is_near, pixel, quarters, run
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo
from pillow_heif import from_pillow

T = Image.Transpose
#: What a camera stores for each orientation: the upright picture, turned the other way.
STORED_AS = {
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}


def tagged(orientation: int, kind: str) -> bytes:
    stored = quarters()
    turn = STORED_AS.get(orientation)
    if turn is not None:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(stored, kind, exif=exif)


def is_upright(picture: Image.Image) -> bool:
    corners = {(0.2, 0.2): RED, (0.8, 0.2): GREEN, (0.2, 0.8): BLUE, (0.8, 0.8): YELLOW}
    return all(is_near(pixel(picture, *place), colour) for place, colour in corners.items())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_comes_out_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    _, picture = run(tmp_path, tagged(orientation, kind))
    assert picture.size == (160, 96)
    assert is_upright(picture)
    assert Base.Orientation not in picture.getexif()


@pytest.mark.parametrize("orientation", [6, 7])
def test_a_turned_picture_is_reduced_to_its_own_shape(tmp_path: Path, orientation: int) -> None:
    """Reduced before it is turned, 160 × 96 at most 40 is 40 × 24 and not 24 × 40; JPEG decodes at 1/4 here."""
    _, picture = run(tmp_path, tagged(orientation, "JPEG"), max_edge_px=40)
    assert picture.size == (40, 24)
    assert is_upright(picture)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    assert is_upright(run(tmp_path, tagged(orientation, "JPEG"))[1])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_does_not_spoil_the_picture(tmp_path: Path) -> None:
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffrubbish")
    assert is_upright(run(tmp_path, data)[1])


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_what_only_xmp_says_is_ignored(tmp_path: Path, kind: str) -> None:
    """Chromium 156 does not turn these; Pillow would."""
    if kind == "PNG":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded(quarters(), "PNG", pnginfo=texts)
    elif kind == "TIFF":
        data = encoded(quarters(), "TIFF", tiffinfo={700: XMP})
    elif kind == "HEIC":
        out = io.BytesIO()
        from_pillow(quarters()).save(out, quality=90, xmp=XMP.replace(b"6", b"1"))  # of 6 the encoder makes a turn
        data = out.getvalue().replace(b'tiff:Orientation="1"', b'tiff:Orientation="6"')
    else:
        data = encoded(quarters(), kind, xmp=XMP)
    assert b"tiff:Orientation" in data
    assert is_upright(run(tmp_path, data)[1])


def test_exif_in_a_png_s_text_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    packed = exif.tobytes().hex()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(packed) // 2:8}\n{packed}\n", zip=True)
    assert is_upright(run(tmp_path, encoded(quarters(), "PNG", pnginfo=texts))[1])

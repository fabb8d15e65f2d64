"""Hostile files end as a valid picture or as one clear reason, soon, and in bounded memory."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import hostile
import pytest
from described import KINDS, file_of, photo_exif, xmp_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imaging_pictures import encoded, heic, noise, reason, run
from PIL import Image, ImageChops

from dream.errors import ImageRejected
from dream.imaging import Limits, VariantSpec, process_file, variant_path


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    before_s, before_kib = os.times().user, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert any(word in reason(tmp_path, hostile.BOMBS[name]) for word in ("pixels", "damaged"))
    assert os.times().user - before_s < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50 * 1024


@pytest.mark.parametrize("name", hostile.NO_PICTURES)
def test_what_is_no_picture_is_refused(tmp_path: Path, name: str) -> None:
    assert "JPEG, PNG" in reason(tmp_path, hostile.NO_PICTURES[name]) or name == "nothing"


@pytest.mark.parametrize("name", hostile.BROKEN)
def test_what_is_broken_is_refused(tmp_path: Path, name: str) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reason(tmp_path, hostile.BROKEN[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100 * 1024


@pytest.mark.parametrize("name", hostile.ODD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_odd_is_a_picture_all_the_same(tmp_path: Path, name: str) -> None:
    run(tmp_path, hostile.ODD[name], keep_facts="all")
    assert hostile.SECRET not in (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("name", hostile.WILD)
def test_what_is_wild_is_a_picture_or_refused(tmp_path: Path, name: str) -> None:
    ends_well(tmp_path, hostile.WILD[name])


@pytest.mark.parametrize("name", [*hostile.ODD, *hostile.WILD])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_crops_of_the_odd_and_the_wild_are_pictures_without_secrets(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes((hostile.ODD | hostile.WILD)[name])
    variants = tuple(map(VariantSpec.parse, ("a:32:cover:jpeg", "b:48x16:cover:avif:30", "c:16x900:cover:webp")))
    try:
        made = process_file(source, target, Limits(variants=variants, focus=(1, 0))).variants
    except ImageRejected:
        return
    for each in made:
        path = variant_path(target, each.name)
        assert hostile.SECRET not in path.read_bytes()
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (each.width_px, each.height_px)


def ends_well(folder: Path, data: bytes) -> bool:
    """Whether it became a picture; where not, it was refused as it should be."""
    for part in ("refused", "processed"):
        (folder / part).mkdir(exist_ok=True)
    try:
        run(folder / "processed", data, keep_facts="all", keep_copyright=True)
    except ImageRejected:
        reason(folder / "refused", data, keep_facts="all", keep_copyright=True)
        return False
    return True


# --- cut and changed


def samples() -> dict[str, bytes]:
    """A file of each kind that decoders read in a way of its own."""
    picture, other = noise(40, 30, 60), noise(40, 30, 60)
    see_through = picture.copy()
    see_through.putalpha(noise(40, 30).getchannel("R"))
    frames: dict[str, Any] = {"save_all": True, "append_images": [other]}
    xmp = xmp_of("<dc:creator><rdf:Seq><rdf:li>Ada</rdf:li></rdf:Seq></dc:creator>", 'exif:GPSLatitude="48,51.5N"')
    return {
        "jpeg": encoded(picture, "JPEG"),
        "jpeg, progressive": encoded(picture, "JPEG", progressive=True, icc_profile=bytes(200)),
        "jpeg, cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "png": encoded(picture, "PNG"),
        "png, palette": encoded(picture.quantize(16), "PNG", transparency=3),
        "png, 16 bits": encoded(picture.convert("I;16"), "PNG"),
        "webp": encoded(picture, "WEBP"),
        "webp, lossless": encoded(see_through, "WEBP", lossless=True),
        "gif": encoded(picture, "GIF"),
        "gif, animated": encoded(picture, "GIF", **frames),
        "webp, animated": encoded(picture, "WEBP", **frames),
        "tiff": encoded(picture, "TIFF"),
        "tiff, lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiff, deflate": encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
        "tiff, jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "bmp": encoded(picture, "BMP"),
        "avif": encoded(picture, "AVIF"),
        "heic": heic(picture),
        **{f"{kind.lower()}, described": file_of(picture, kind, photo_exif(Artist="Ada"), xmp) for kind in KINDS},
    }


SAMPLES = samples()


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_that_is_cut_anywhere_is_refused_or_has_lost_nothing(tmp_path: Path, name: str) -> None:
    """At every hundredth of its length: no picture comes out half grey."""
    data = SAMPLES[name]
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    folder.mkdir()
    _, complete = run(whole, data)
    lossless = 0
    for hundredth in range(100):
        try:
            _, picture = run(folder, data[: len(data) * hundredth // 100])
        except ImageRejected:
            continue
        assert ImageChops.difference(picture.convert("RGBA"), complete.convert("RGBA")).getbbox() is None, hundredth
        lossless += 1
    assert lossless < 60, "little but metadata can lie behind the pixels"


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A sample with bytes flipped, put over, taken out or put in, most of them in its head."""
    data = bytearray(SAMPLES[draw(st.sampled_from(sorted(SAMPLES)))])
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 600, 10**6]))) - 1))
        new = draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]) | st.binary(max_size=4))
        removed = draw(st.sampled_from([0, len(new), 1, 7]))
        data[place : place + removed] = new
    return bytes(data)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=changed())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_changed_in_a_file_it_is_a_picture_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ends_well(Path(folder), data)

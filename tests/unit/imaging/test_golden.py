"""Golden pictures: a chart of patches in every mode, profile and orientation comes out as it should look.

What it should look like is worked out from the numbers (`profiles.py`), not with the libraries that the engine uses.
"""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import profiles
import pytest
from imaging_pictures import encoded, run
from PIL import Image, ImageSequence
from PIL.ExifTags import Base

from dream.imaging import Limits, VariantSpec, process_file, variant_path
from dream.imaging.decode import Decoded
from dream.imaging.transform import prepare

Patches = list[tuple[int, ...]]

#: Colours in and out of the corners of every gamut, and greys.
COLOURS: Patches = [
    *((200, 80, 80), (100, 160, 100), (70, 90, 190), (220, 200, 60), (120, 60, 150), (60, 160, 170)),
    *((0, 0, 0), (40, 40, 40), (90, 90, 90), (140, 140, 140), (200, 200, 200), (255, 255, 255)),
]
GREYS = [0, 10, 30, 60, 90, 120, 150, 180, 200, 220, 240, 255]
ACROSS, PATCH_PX = 4, 32
#: JPEG and WebP move flat colours a little.
TOLERANCE = 5


def chart(mode: str, patches: list[Any]) -> Image.Image:
    """Patches in rows of four."""
    picture = Image.new(mode, (ACROSS * PATCH_PX, len(patches) // ACROSS * PATCH_PX))
    for number, colour in enumerate(patches):
        top, left = divmod(number, ACROSS)
        picture.paste(colour, (left * PATCH_PX, top * PATCH_PX, (left + 1) * PATCH_PX, (top + 1) * PATCH_PX))
    return picture


def patches_of(picture: Image.Image, mode: str = "RGB") -> Patches:
    """The mean colour of the middle of each patch."""
    small = picture.convert(mode).reduce(PATCH_PX // 4)
    middles = product(range(picture.height // PATCH_PX), range(picture.width // PATCH_PX))
    means = [small.crop((4 * x + 1, 4 * y + 1, 4 * x + 3, 4 * y + 3)).reduce(2).getpixel((0, 0)) for y, x in middles]
    return [mean if isinstance(mean, tuple) else (int(mean or 0),) for mean in means]


def assert_like(found: Patches, expected: Patches, tolerance: int = TOLERANCE) -> None:
    assert len(found) == len(expected)
    for patch, (one, other) in enumerate(zip(found, expected, strict=True)):
        worst = max(abs(a - b) for a, b in zip(one, other, strict=True))
        assert worst <= tolerance, f"patch {patch} is {one} and should be {other}"


def greys(values: list[int]) -> Patches:
    return [(value, value, value) for value in values]


# --- profiles


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("space", [profiles.ADOBE_RGB, profiles.DISPLAY_P3], ids=["Adobe RGB", "Display P3"])
def test_a_wide_space_looks_the_same_in_srgb(tmp_path: Path, kind: str, space: profiles.Primaries) -> None:
    lossless = {"quality": 100, "subsampling": "4:4:4"} if kind in {"JPEG", "AVIF"} else {"quality": 100}
    data = encoded(chart("RGB", COLOURS), kind, icc_profile=profiles.rgb_profile(space), **lossless)
    _, out = run(tmp_path, data)
    expected = [profiles.to_srgb(colour, space) for colour in COLOURS]  # type: ignore[arg-type]
    assert_like(patches_of(out), expected, 10 if kind == "AVIF" else TOLERANCE)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("output_format", ["jpeg", "webp", "avif"])
def test_a_crop_has_the_colours_of_its_place(tmp_path: Path, kind: str, output_format: str, row: int) -> None:
    lossless = {"quality": 100, "subsampling": "4:4:4"} if kind == "JPEG" else {}
    profile = profiles.rgb_profile(profiles.DISPLAY_P3)
    data = encoded(chart("RGB", COLOURS), kind, icc_profile=profile, **lossless)
    text = f"strip:{ACROSS * PATCH_PX}x{PATCH_PX}:cover:{output_format}"
    focus = (0.5, (row + 0.5) / (len(COLOURS) // ACROSS))
    (tmp_path / "source").write_bytes(data)
    limits = Limits(variants=(VariantSpec.parse(text),), focus=focus)
    process_file(tmp_path / "source", tmp_path / "target", limits)
    expected = [profiles.to_srgb(colour, profiles.DISPLAY_P3) for colour in COLOURS]  # type: ignore[arg-type]
    with Image.open(variant_path(tmp_path / "target", "strip")) as strip:
        assert strip.size == (ACROSS * PATCH_PX, PATCH_PX)
        assert_like(patches_of(strip), expected[row * ACROSS : (row + 1) * ACROSS], 10)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_grey_profile_is_heeded(tmp_path: Path, kind: str) -> None:
    """Grey of gamma 1.0, as scanners write it, is far darker than its numbers."""
    _, out = run(tmp_path, encoded(chart("L", GREYS), kind, icc_profile=profiles.grey_profile(1.0)))
    expected = [profiles.to_srgb((grey, grey, grey), profiles.DISPLAY_P3, 1.0) for grey in GREYS]
    assert_like(patches_of(out), expected)


#: The CIELAB colours of paper, of each ink and of two over each other, on a press that nobody has.
PRESS: dict[tuple[int, ...], profiles.Colour] = {
    (0, 0, 0, 0): (100, 0, 0),
    (1, 0, 0, 0): (57, -30, -40),
    (0, 1, 0, 0): (50, 60, -3),
    (0, 0, 1, 0): (88, -6, 70),
    (0, 0, 0, 1): (0, 0, 0),
    (1, 1, 0, 0): (30, 15, -40),
    (1, 0, 1, 0): (52, -40, 26),
    (0, 1, 1, 0): (48, 55, 40),
}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_heeded(tmp_path: Path, kind: str) -> None:
    """Only the profile can tell the look of the inks."""
    lossless = {"quality": 100, "subsampling": "4:4:4"} if kind == "JPEG" else {}
    picture = chart("CMYK", [tuple(255 * ink for ink in inks) for inks in PRESS])
    _, out = run(tmp_path, encoded(picture, kind, icc_profile=profiles.cmyk_profile(PRESS), **lossless))
    assert_like(patches_of(out), list(map(profiles.lab_to_srgb, PRESS.values())), 8)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_no_negative(tmp_path: Path, kind: str) -> None:
    inks = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 255, 255, 0)]
    inks += [(100, 20, 0, 0), (0, 0, 0, 128)]
    _, out = run(tmp_path, encoded(chart("CMYK", inks), kind))
    expected = [tuple(round((255 - ink) * (255 - key) / 255) for ink in rest) for *rest, key in inks]
    assert_like(patches_of(out), expected, 12)


# --- modes


def deep(mode: str, factor: float) -> Image.Image:
    """A chart of `GREYS` in a mode with wide numbers."""
    wide = chart("L", GREYS).convert("I" if mode.startswith("I") else mode).point(lambda value: value * factor + 0)
    return wide.convert(mode)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize(("mode", "factor"), [("L", 1), ("I;16", 257), ("F", 1 / 255)])
def test_a_scan_of_which_0_is_white_is_no_negative(tmp_path: Path, mode: str, factor: float, compression: str) -> None:
    """As some scanners write greys: PhotometricInterpretation is 0."""
    picture = chart("L", GREYS) if mode == "L" else deep(mode, factor)
    data = encoded(picture, "TIFF", compression=compression)
    black_is_0, white_is_0 = (struct.pack("<HHLL", 262, 3, 1, value) for value in (1, 0))
    assert data.count(black_is_0) == 1
    _, out = run(tmp_path, data.replace(black_is_0, white_is_0))
    assert_like(patches_of(out), greys([255 - grey for grey in GREYS]))


@pytest.mark.parametrize(
    ("picture", "kind", "expected"),
    [
        (chart("1", [0, 255] * 6), "PNG", greys([0, 255] * 6)),
        (chart("1", [0, 255] * 6), "TIFF", greys([0, 255] * 6)),
        (chart("L", GREYS), "PNG", greys(GREYS)),
        (deep("I;16", 257), "PNG", greys(GREYS)),
        (deep("I;16", 257), "TIFF", greys(GREYS)),
        (deep("I", 257), "TIFF", greys(GREYS)),
        (deep("F", 1 / 255), "TIFF", greys(GREYS)),
        (chart("RGB", COLOURS).quantize(16), "PNG", COLOURS),
        (chart("RGB", COLOURS).quantize(16), "GIF", COLOURS),
        (chart("RGB", COLOURS).quantize(16), "BMP", COLOURS),
        (chart("RGB", COLOURS), "BMP", COLOURS),
        (chart("RGBA", [(*colour, 255) for colour in COLOURS]), "PNG", COLOURS),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else value if isinstance(value, str) else "",
)
def test_each_mode_looks_as_it_should(tmp_path: Path, picture: Image.Image, kind: str, expected: Patches) -> None:
    processed, out = run(tmp_path, encoded(picture, kind))
    assert processed.extension == "webp"  # a drawing, without loss
    assert_like(patches_of(out), expected)


ALPHAS = [0, 40, 128, 255] * 3
SEE_THROUGH = [(*colour, alpha) for colour, alpha in zip(COLOURS, ALPHAS, strict=True)]


def assert_see_through(out: Image.Image, expected: Patches) -> None:
    """Alpha as it was, and colours where they can be seen."""
    found = patches_of(out, "RGBA")
    assert_like([patch[3:] for patch in found], [patch[3:] for patch in expected])
    seen = [number for number, patch in enumerate(expected) if patch[3] > 100]
    assert_like([found[number][:3] for number in seen], [expected[number][:3] for number in seen], 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparency_is_kept(tmp_path: Path, kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100}
    processed, out = run(tmp_path, encoded(chart("RGBA", SEE_THROUGH), kind, **lossless))
    assert processed.extension == "webp"
    assert_see_through(out, SEE_THROUGH)


def test_transparency_is_laid_on_white_where_jpeg_is_asked_for(tmp_path: Path) -> None:
    _, out = run(tmp_path, encoded(chart("RGBA", SEE_THROUGH), "PNG"), output_format="jpeg")
    laid = [tuple(round(255 + (part - 255) * alpha / 255) for part in colour) for *colour, alpha in SEE_THROUGH]
    assert out.format == "JPEG"
    assert_like(patches_of(out), laid)


def test_grey_with_alpha_keeps_both(tmp_path: Path) -> None:
    _, out = run(tmp_path, encoded(chart("LA", list(zip(GREYS, ALPHAS, strict=True))), "PNG"))
    assert_see_through(out, [(grey, grey, grey, alpha) for grey, alpha in zip(GREYS, ALPHAS, strict=True)])


def test_a_palette_with_alphas_keeps_them(tmp_path: Path) -> None:
    indexed = chart("P", list(range(12)))
    indexed.putpalette([part for colour in COLOURS for part in colour])
    _, out = run(tmp_path, encoded(indexed, "PNG", transparency=bytes(ALPHAS)))
    assert_see_through(out, SEE_THROUGH)


OPAQUE = [(*colour, 255) for colour in COLOURS]
RARE = {
    "PA": (chart("RGB", COLOURS).quantize(16).convert("PA"), COLOURS),
    "La": (chart("LA", [(grey, 255) for grey in GREYS]).convert("La"), greys(GREYS)),
    "RGBa": (chart("RGBA", OPAQUE).convert("RGBa"), COLOURS),
    "RGBX": (chart("RGB", COLOURS).convert("RGBX"), COLOURS),
    "YCbCr": (chart("RGB", COLOURS).convert("YCbCr"), COLOURS),
    "HSV": (chart("RGB", COLOURS).convert("HSV"), COLOURS),
    "I;16B": (deep("I;16B", 257), greys(GREYS)),
}


@pytest.mark.parametrize("mode", RARE)
def test_modes_that_few_files_have_look_as_they_should(mode: str) -> None:
    """As decoders may hand them over: premultiplied, with a palette and alpha, in other coordinates."""
    picture, expected = RARE[mode]
    assert picture.mode == mode
    assert_like(patches_of(prepare(Decoded(picture, picture.size, 1, ()))), expected, 6)


# --- orientation, and moving pictures

T = Image.Transpose
#: What a camera stores for each orientation: the upright picture, turned the other way.
STORED_AS = dict(
    zip(
        range(2, 9),
        (T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_90, T.TRANSVERSE, T.ROTATE_270),
        strict=True,
    )
)


@pytest.mark.parametrize("output_format", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_upright_in_every_format(tmp_path: Path, orientation: int, output_format: str) -> None:
    stored = chart("RGB", COLOURS)
    if orientation in STORED_AS:
        stored = stored.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    _, out = run(tmp_path, encoded(stored, "JPEG", exif=exif, quality=95), output_format=output_format)
    assert out.size == chart("RGB", COLOURS).size
    assert_like(patches_of(out), COLOURS, 8)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_every_frame_of_an_animation_looks_as_it_should(tmp_path: Path, kind: str) -> None:
    rotated = [COLOURS[number:] + COLOURS[:number] for number in range(3)]
    first, *rest = [chart("RGB", patches) for patches in rotated]
    data = encoded(first, kind, save_all=True, append_images=rest, duration=100, quality=95)
    processed, out = run(tmp_path, data)
    assert processed.extension == "webp"
    for frame, patches in zip(ImageSequence.Iterator(out), rotated, strict=True):
        assert_like(patches_of(frame), patches, 10)

"""Drawings keep their pixels, photos are encoded as before: pixels distinguish the two."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest
from imaging_pictures import RED, encoded, is_near, noise, pixel, quarters, run
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from benchmarks.drawn import difference, drawings
from dream.imaging import Limits, OutputFormat, VariantSpec, process_file
from dream.imaging.content import PHOTO, content_of_pixels
from dream.imaging.encode import encode

NAMES = (
    "64 colours at random",
    "16 colours at random",
    "red words on blue",
    "the same, 5K",
    "coloured lines",
    "a gradient",
    "a page of two colours, scanned",
    "a window with a gradient picture in it",
    "a transparent icon",
)
LARGE = {"the same, 5K", "a page of two colours, scanned"}


@cache
def drawn() -> dict[str, Image.Image]:
    """The drawings by their names; not drawn by a process that only collects the tests."""
    return dict(drawings())


def test_every_drawing_is_tested() -> None:
    assert tuple(drawn()) == NAMES


def photo(width: int = 900, height: int = 600) -> Image.Image:
    """Photo-like pictures: grained, with soft colours and soft edges."""
    scene = quarters(width, height).filter(ImageFilter.GaussianBlur(3))
    soft = [Image.effect_noise((width // 4, height // 4), 30).resize((width, height)) for _ in range(2)]
    grain = Image.merge("YCbCr", [Image.effect_noise((width, height), 20), *soft]).convert("RGB")
    return Image.blend(scene, grain, 0.4)


def words(picture: Image.Image, height_px: int = 36) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    for row in range(picture.height // height_px // 2):
        pen.text((10, 2 * row * height_px), "red words, many of them", fill=(255, 0, 0), font_size=height_px)
    return picture


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_loses_nothing_where_that_fits(tmp_path: Path, name: str) -> None:
    """As a photo it lost up to 47 levels in the mean."""
    picture = drawn()[name]
    processed, out = run(tmp_path, encoded(picture, "PNG"))
    assert processed.content_type == "image/webp"
    assert processed.size_bytes <= 2**20
    if name in LARGE:  # too much for a JPEG of all pixels, in which coloured words would be grey besides
        assert max(out.size) == 2560
    else:
        seen = picture if picture.mode == "RGBA" else picture.convert("RGB")
        if seen.mode == "RGBA":
            assert ImageChops.difference(seen.getchannel("A"), out.getchannel("A")).getbbox() is None
        assert difference(seen, out) == 0


@pytest.mark.parametrize("wanted", ["jpeg", "avif"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - LARGE))
def test_a_drawing_keeps_its_colours_in_other_formats(tmp_path: Path, name: str, wanted: OutputFormat) -> None:
    picture = drawn()[name]
    processed, out = run(tmp_path, encoded(picture, "PNG"), output_format=wanted)
    assert processed.extension == {"jpeg": "jpg", "avif": "avif"}[wanted]
    assert out.size == picture.size
    seen = picture if picture.mode == "RGBA" else picture.convert("RGB")
    assert difference(seen, out) < 3


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("colours", [2, 5, 256])
def test_a_palette_is_kept(tmp_path: Path, kind: str, colours: int) -> None:
    picture = noise(60, 40).quantize(colours)
    data = encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
    _, out = run(tmp_path, data)
    assert difference(picture, out) == 0


def test_line_art_of_one_bit_is_kept(tmp_path: Path) -> None:
    picture = Image.new("1", (300, 200), 1)
    ImageDraw.Draw(picture).line((0, 0, 299, 199), fill=0)
    for kind in ("PNG", "TIFF", "BMP"):
        _, out = run(tmp_path, encoded(picture, kind))
        assert difference(picture, out) == 0


def test_a_screenshot_that_does_not_fit_without_loss_keeps_its_colours(tmp_path: Path) -> None:
    picture = Image.new("RGB", (1200, 800), "white")
    words(picture, 16)
    picture.paste(photo(700, 500), (400, 200))
    _, out = run(tmp_path, encoded(picture, "PNG"), max_bytes=500_000)
    assert sampling(out) == "4:4:4"
    assert out.size == picture.size
    assert is_near(pixel(out, 0.9, 0.05), (255, 255, 255, 255))
    was, _ = encoded_as_a_photo(tmp_path, picture, 500_000)
    assert difference(picture, out) < difference(picture, was) * 0.8


def sampling(image: Image.Image) -> str:
    assert isinstance(image, JpegImageFile)
    return {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}[get_sampling(image)]


def encoded_as_a_photo(folder: Path, picture: Image.Image, max_bytes: int = 2**20) -> tuple[Image.Image, bytes]:
    encode(picture, folder / "as-a-photo", Limits(max_bytes=max_bytes), PHOTO)
    data = (folder / "as-a-photo").read_bytes()
    (folder / "as-a-photo").unlink()
    return Image.open(io.BytesIO(data)), data


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("width", [120, 900, 2400])
def test_a_photo_is_what_it_was(tmp_path: Path, width: int, mode: str) -> None:
    picture = photo(width, width * 2 // 3).convert(mode)
    _, data = encoded_as_a_photo(tmp_path, picture)
    for kind in ("PNG", "TIFF", "BMP"):
        run(tmp_path, encoded(picture, kind))
        assert (tmp_path / "target").read_bytes() == data


def test_a_photo_that_is_cut_out_is_what_it_was(tmp_path: Path) -> None:
    picture = photo()
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse((100, 50, 800, 550), fill=255)
    picture.putalpha(mask)
    _, data = encoded_as_a_photo(tmp_path, picture)
    processed, _ = run(tmp_path, encoded(picture, "PNG"))
    assert processed.extension == "webp"
    assert (tmp_path / "target").read_bytes() == data


def test_coloured_words_on_a_photo_do_not_turn_grey(tmp_path: Path) -> None:
    picture = words(photo())
    processed, out = run(tmp_path, encoded(picture, "PNG"))
    assert sampling(out) == "4:4:4"
    was, data = encoded_as_a_photo(tmp_path, picture)
    assert difference(picture, out) < difference(picture, was)
    assert processed.size_bytes < 2 * len(data)  # of the quality that photos have


def test_a_jpeg_keeps_colours_that_it_has_at_full_scale(tmp_path: Path) -> None:
    """Turned, it has to be encoded anew; one with its colours at half the scale has nothing left to keep."""
    exif = Image.Exif()
    exif[274] = 6
    for subsampling in ("4:4:4", "4:2:0"):
        data = encoded(drawn()["red words on blue"], "JPEG", quality=95, subsampling=subsampling, exif=exif)
        _, out = run(tmp_path, data)
        assert sampling(out) == subsampling


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_photo_in_a_jpeg_is_what_it_was(tmp_path: Path, subsampling: str) -> None:
    data = encoded(photo(), "JPEG", quality=95, subsampling=subsampling)
    _, out = run(tmp_path, data, max_edge_px=600)
    assert sampling(out) == "4:2:0"


def test_variants_of_a_drawing_are_drawings_where_that_is_small(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded(drawn()["coloured lines"], "PNG"))
    processed = process_file(
        source, target, Limits(variants=(VariantSpec.within("all", 1200), VariantSpec.within("small", 300)))
    )
    assert [variant.name for variant in processed.variants] == ["all", "small"]
    assert processed.variants[0].extension == "webp"
    assert difference(drawn()["coloured lines"], Image.open(tmp_path / "target.all")) == 0
    small = drawn()["coloured lines"].resize((300, 200), Image.Resampling.LANCZOS)
    assert difference(small, Image.open(tmp_path / "target.small")) < 5


@pytest.mark.slow
def test_a_budget_below_any_file_is_met_by_what_is_lost(tmp_path: Path) -> None:
    for max_bytes in (3_000, 20_000, 60_000):
        for name in ("coloured lines", "a window with a gradient picture in it", "a transparent icon"):
            processed, _ = run(tmp_path, encoded(drawn()[name], "PNG"), max_bytes=max_bytes)
            assert processed.size_bytes <= max_bytes


def test_small_pictures_of_any_size_are_told() -> None:
    """None is too small to be looked at."""
    for size in ((1, 1), (1, 500), (500, 1), (2, 2), (31, 33), (3, 4000)):
        for mode in ("L", "RGB", "RGBA"):
            assert content_of_pixels(Image.new(mode, size, 90 if mode == "L" else RED)).is_drawn


def moving_words(count: int) -> list[Image.Image]:
    page = drawn()["red words on blue"].resize((400, 300), Image.Resampling.NEAREST)
    frames = []
    for number in range(count):
        frame = page.copy()
        ImageDraw.Draw(frame).rectangle((9 * number, 100, 9 * number + 60, 160), fill=(0, 220, 0))
        frames.append(frame.quantize(64).convert("RGB"))
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4, 5, 24])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_drawing_that_moves_loses_nothing_where_that_fits(tmp_path: Path, kind: str, count: int) -> None:
    frames = moving_words(count)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    assert process_file(source, target, Limits()).content_type == "image/webp"
    with Image.open(target) as out:
        assert out.n_frames == count  # type: ignore[attr-defined]
        for number, frame in enumerate(frames):
            out.seek(number)
            assert difference(frame, out) == 0
    assert process_file(source, target, Limits(max_bytes=20_000)).size_bytes <= 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.slow
def test_where_colours_at_full_scale_do_not_fit_the_nearest_way_is_taken(tmp_path: Path) -> None:
    """A large screenshot with a photo in it: as a JPEG it would lose two fifths of its edge."""
    picture = drawn()["red words on blue"].resize((1600, 1200), Image.Resampling.BICUBIC)
    picture.paste(photo(700, 600), (700, 400))
    for wanted, most in (("auto", 6), ("jpeg", 40)):
        _, out = run(tmp_path, encoded(picture, "PNG"), output_format=wanted, max_bytes=500_000)
        was, _ = encoded_as_a_photo(tmp_path, picture, 500_000)
        seen, before = (each.resize(picture.size, Image.Resampling.LANCZOS) for each in (out, was))
        assert difference(picture, seen) <= min(most, difference(picture, before) + 0.1)

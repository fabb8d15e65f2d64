"""Cropped variants: the part around the focal point, in the box's shape, from every kind of picture."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from imaging_pictures import BLUE, GREEN, RED, YELLOW, encoded, heic, is_near, noise, pixel, quarters
from PIL import Image, ImageDraw

from dream.imaging import Limits, Processed, Variant, VariantSpec, process_file, variant_path
from dream.imaging.crop import box_for, cut, least_edge_px

Point = tuple[float, float]
SQUARE = VariantSpec.parse("square:120:cover")
#: The focal points in the middle of each quarter of `quarters`, and the colour there.
CORNERS = {(0.2, 0.2): RED, (0.8, 0.2): GREEN, (0.2, 0.8): BLUE, (0.8, 0.8): YELLOW}


def made(
    folder: Path, data: bytes, *specs: str, **limits: object
) -> tuple[Processed, list[tuple[Variant, Image.Image]]]:
    """Process a file with these variants; the description, and each variant with its pixels."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    wanted = tuple(map(VariantSpec.parse, specs))
    processed = process_file(source, target, Limits(variants=wanted, **limits))  # type: ignore[arg-type]
    variants = []
    for each in processed.variants:
        with Image.open(variant_path(target, each.name)) as image:
            image.load()
        assert image.size == (each.width_px, each.height_px)
        assert variant_path(target, each.name).stat().st_size == each.size_bytes
        variants.append((each, image))
    return processed, variants


def scene(width: int, height: int, at: Point) -> Image.Image:
    """A grey picture with a red disc at a focal point."""
    image = Image.new("RGB", (width, height), (90, 90, 90))
    radius, x, y = min(width, height) // 8, at[0] * width, at[1] * height
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
    return image


# --- the box


@pytest.mark.parametrize("focus", [(0, 0), (1, 1), (0.5, 0.5), (0.31, 0.87)])
@pytest.mark.parametrize("size", [(4000, 3000), (3001, 4003), (640, 480), (100, 5000), (5000, 7), (1, 1), (3, 2)])
def test_a_box_has_the_shape_stays_inside_and_reaches_two_edges(size: tuple[int, int], focus: Point) -> None:
    for spec in (VariantSpec.parse("a:640x480:cover"), VariantSpec.parse("a:16x1000:cover"), SQUARE):
        wanted = spec.size_for(size)
        left, top, right, bottom = box_for(size, wanted, focus)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert (right - left) / wanted[0] == pytest.approx((bottom - top) / wanted[1], rel=1e-9)
        assert right - left == pytest.approx(size[0]) or bottom - top == pytest.approx(size[1])


def test_a_box_is_centred_on_the_focal_point_where_the_edges_allow() -> None:
    left, _, right, _ = box_for((3000, 1000), (100, 100), (0.4, 0.9))
    assert (left + right) / 2 == pytest.approx(1200)
    assert box_for((3000, 1000), (100, 100), (0.05, 0.9)) == (0, 0, 1000, 1000)


def test_a_crop_without_reduction_keeps_the_pixels() -> None:
    image = noise(641, 480)
    out = cut(image, image.size, VariantSpec.parse("card:300x480:cover"), (0.31, 0.5))
    left = round(0.31 * 641 - 150)
    assert out.tobytes() == image.crop((left, 0, left + 300, 480)).tobytes()


def test_cut_and_reduced_in_one_step_it_is_the_same_picture() -> None:
    image = noise(900, 600, 40)
    out = cut(image, image.size, VariantSpec.parse("card:150x200:cover"), (0.7, 0.5))
    expected = image.resize((150, 200), Image.Resampling.LANCZOS, box=(405, 0, 855, 600))
    pairs = zip(out.tobytes(), expected.tobytes(), strict=True)
    assert max(abs(one - other) for one, other in pairs) <= 3


def test_a_reduced_copy_has_pixels_enough_for_every_crop() -> None:
    for size, text in product(
        [(4000, 3000), (1111, 2222), (3000, 200)], ["a:640x480:cover", "a:16x900:cover", "a:320"]
    ):
        spec = VariantSpec.parse(text)
        share = least_edge_px(size, [spec]) / max(size)
        assert share <= 1
        wanted = spec.size_for(size)
        slack = 0.5 if spec.fit == "fit" else 0  # sides are rounded
        assert size[0] * share >= wanted[0] - slack
        assert size[1] * share >= wanted[1] - slack


# --- the pictures


@pytest.mark.parametrize(("focus", "colour"), CORNERS.items())
def test_a_crop_shows_the_focal_point(tmp_path: Path, focus: Point, colour: tuple[int, int, int]) -> None:
    _, made_of = made(tmp_path, encoded(quarters(900, 300), "PNG"), "a:120x120:cover", "b:400x50:cover", focus=focus)
    (_, square), (_, strip) = made_of
    assert (square.size, strip.size) == ((120, 120), (400, 50))
    x = 0.25 if focus[0] < 0.5 else 0.75
    y = 0.25 if focus[1] < 0.5 else 0.75
    assert is_near(pixel(square, x, y), colour)
    assert is_near(pixel(strip, x, 0.5), colour)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "HEIC", "WEBP"])
def test_a_focal_point_counts_in_the_upright_picture(tmp_path: Path, kind: str, orientation: int) -> None:
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's number of the turn that undoes it
    upright = quarters(640, 320)
    stored = upright.transpose(Image.Transpose(turned[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    data = heic(stored, orientation) if kind == "HEIC" else encoded(stored, kind, quality=95, exif=exif)
    [(_, right_bottom)] = made(tmp_path, data, "a:80:cover", focus=(0.9, 0.5))[1]
    assert is_near(pixel(right_bottom, 0.5, 0.25), GREEN)
    assert is_near(pixel(right_bottom, 0.5, 0.75), YELLOW)


def test_a_jpeg_that_is_kept_is_cropped_at_full_sharpness(tmp_path: Path) -> None:
    """The copy that variants are made of has at least the pixels of the crop, so fine lines are still there."""
    lines = Image.new("L", (1200, 600), 0)
    for x in range(0, 1200, 8):
        lines.paste(255, (x, 0, x + 4, 600))
    data = encoded(lines.convert("RGB"), "JPEG", quality=95)
    _, [(_, strip)] = made(tmp_path, data, "strip:300x550:cover", focus=(0.5, 0.5))
    assert (tmp_path / "target").read_bytes()[-200:] == data[-200:]
    assert strip.size == (300, 550)
    low, high = strip.convert("L").getextrema()
    assert low < 40
    assert high > 215


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (20, 3000), (3000, 20), (16, 16)])
def test_tiny_and_extreme_pictures_are_cropped(tmp_path: Path, size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG"):
        _, [(_, wide), (_, tall)] = made(
            tmp_path, encoded(noise(*size), kind), "a:640x480:cover", "b:16x1600:cover:webp", focus=(1, 0)
        )
        assert wide.width <= size[0]
        assert wide.height <= size[1]
        assert tall.width <= size[0]
        assert tall.height <= size[1]


def test_an_animation_is_cropped_from_its_first_frame(tmp_path: Path) -> None:
    frames = [quarters(300, 100), scene(300, 100, (0.5, 0.5))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    processed, [(_, square)] = made(tmp_path, data, "a:80:cover:jpeg", focus=(1, 0.5))
    assert processed.content_type == "image/webp"
    assert is_near(pixel(square, 0.5, 0.25), GREEN, 20)
    assert is_near(pixel(square, 0.5, 0.75), YELLOW, 20)


# --- format and quality


@pytest.mark.parametrize("output", ["auto", "jpeg", "webp", "avif"])
def test_a_named_format_counts_whatever_the_format_of_pictures_is(tmp_path: Path, output: str) -> None:
    names = ("a:64:jpeg", "b:64x48:cover:webp", "c:64:avif", "d:64")
    processed, variants = made(tmp_path, encoded(noise(200, 160), "JPEG"), *names, output_format=output)
    kinds = [(each.content_type, image.format) for each, image in variants]
    assert kinds[:3] == [("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("image/avif", "AVIF")]
    assert kinds[3][0] == processed.content_type


def test_a_transparent_picture_is_on_white_in_a_jpeg(tmp_path: Path) -> None:
    image = quarters(300, 200)
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((*RED, 255), (0, 0, 150, 200))
    _, [(_, jpeg), (_, webp)] = made(tmp_path, encoded(image, "PNG"), "a:99:cover:jpeg", "b:99:cover", focus=(0.5, 0.5))
    assert is_near(pixel(jpeg, 0.8, 0.5), (255, 255, 255))
    assert is_near(pixel(jpeg, 0.2, 0.5), RED, 20)
    assert pixel(webp, 0.8, 0.5)[3] == 0


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
def test_a_lower_quality_takes_fewer_bytes_and_a_higher_one_changes_nothing(tmp_path: Path, kind: str) -> None:
    names = [f"a:600:{kind}", f"b:600:{kind}:100", f"c:600:{kind}:70", f"d:600:{kind}:30", f"e:600:{kind}:1"]
    _, variants = made(tmp_path, encoded(noise(640, 480, 60), "JPEG"), *names)
    own, most, *lower = [each.size_bytes for each, _ in variants]
    assert own == most
    assert [own, *lower] == sorted([own, *lower], reverse=True)
    assert lower[2] < 0.5 * own
    assert {image.size for _, image in variants} == {(600, 450)}


def test_a_drawing_with_a_quality_is_encoded_with_loss(tmp_path: Path) -> None:
    _, [(own, _), (lossy, image)] = made(tmp_path, encoded(quarters(400, 300), "PNG"), "a:200", "b:200:webp:60")
    assert own.content_type == "image/webp"
    assert image.format == "WEBP"
    assert b"VP8L" not in variant_path(tmp_path / "target", lossy.name).read_bytes()[:64]


@pytest.mark.parametrize(
    "text", ["a:240x130:cover", "a:240x130:cover:webp:95", "a:240x130:cover:avif:10", "a:240:jpeg:1"]
)
def test_the_byte_budget_holds_for_every_form(tmp_path: Path, text: str) -> None:
    _, [(each, _)] = made(tmp_path, encoded(noise(250, 160), "PNG"), text, max_bytes=2000)
    assert each.size_bytes <= 2000

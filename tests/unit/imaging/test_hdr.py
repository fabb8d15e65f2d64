"""HDR stays HDR: a gain map goes the way of its picture, and an independent reader renders what the upload rendered."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import profiles
import pytest
from imaging_pictures import noise
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from playwright.sync_api import Browser

from dream.imaging import Limits, Processed, VariantSpec, process_file, variant_path
from dream.imaging.crop import box_for
from tests import gain_maps
from tests.gain_maps import Numbers, Photo, Pixels

#: The error of light that JPEG and 8 bits make on the smooth pictures here, as a share.
MEAN_ERROR, WORST_ERROR = 0.012, 0.08


def process(folder: Path, data: bytes, **limits: Any) -> tuple[Processed, bytes]:
    (folder / "source").write_bytes(data)
    processed = process_file(folder / "source", folder / "target", Limits(**limits))
    result = (folder / "target").read_bytes()
    assert processed.size_bytes == len(result)
    assert b"PRIVATE" not in result
    names = {"source", "target", *(variant_path(folder / "target", each.name).name for each in processed.variants)}
    assert {path.name for path in folder.iterdir()} == names, "no file of a try is left"
    return processed, result


def opened(data: bytes) -> Image.Image:
    """The picture as a viewer without HDR opens it."""
    image = JpegImageFile(io.BytesIO(data))
    image.load()
    return image


def light_of(result: bytes) -> Pixels:
    read = gain_maps.read(result)
    assert read is not None, "the result has a gain map"
    return gain_maps.rendered(opened(read.base), opened(read.gain_map), read.numbers)


def assert_same_light(found: Pixels, expected: Pixels) -> None:
    expected = gain_maps.reduced(expected, (found.shape[1], found.shape[0]))
    error = np.abs(found - expected) / (expected + 0.05)
    assert error.mean() < MEAN_ERROR
    assert np.percentile(error, 99.9) < WORST_ERROR


def light_of_photo(photo: Photo, numbers: Numbers) -> Pixels:
    return gain_maps.rendered(opened(photo.base), opened(photo.gain_map), numbers)


NUMBERS = {
    "usual": Numbers(),
    "with gamma": Numbers(gamma=0.7, most=3.2, headroom_to=3.2),
    "below nothing": Numbers(least=-1.0, most=1.5, headroom_from=0.5, headroom_to=2.5),
    "libultrahdr's": Numbers(offset=0.0, hdr_offset=0.0, most=5.6224, headroom_to=5.6224),
    "three channels": Numbers(least=(0.0, 0.1, -0.2), most=(2.0, 1.5, 1.0), gamma=(1.0, 0.8, 1.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ultra", "iso"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_gain_map_survives_with_its_light(tmp_path: Path, form: str, name: str) -> None:
    numbers = NUMBERS[name]
    mode = "RGB" if name == "three channels" else "L"
    photo = gain_maps.photo(numbers, form=form, levels=gain_maps.map_picture(mode=mode))
    _, result = process(tmp_path, photo.file(), max_edge_px=1200)
    assert_same_light(light_of(result), light_of_photo(photo, numbers))


@pytest.mark.parametrize(("tags", "stops"), [((1.01, 0.00608), 2.5744), ((0.74, None), 1.8), ((1.2, 0.63262), 2.1113)])
def test_an_apple_map_becomes_one_for_all(tmp_path: Path, tags: tuple[float, float | None], stops: float) -> None:
    photo = gain_maps.photo(form="apple", note=gain_maps.apple_note(*tags))
    _, result = process(tmp_path, photo.file(), max_edge_px=1200)
    read = gain_maps.read(result)
    assert read is not None
    assert read.numbers.headroom_to == pytest.approx(stops, abs=0.001)
    expected = gain_maps.apple_light(opened(photo.base), opened(photo.gain_map), 2**stops)
    assert_same_light(light_of(result), expected)


def test_an_apple_map_may_say_its_headroom_itself(tmp_path: Path) -> None:
    photo = gain_maps.photo(form="apple")
    second = gain_maps.with_head(gain_maps.jpeg(gain_maps.map_picture()), gain_maps.apple_xmp(5.0))
    _, result = process(tmp_path, Photo(photo.base, second).file(), max_edge_px=1200)
    expected = gain_maps.apple_light(opened(photo.base), opened(second), 5.0)
    assert_same_light(light_of(result), expected)


@pytest.mark.slow
@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_map_is_found_by_the_index_or_right_behind_the_picture(
    tmp_path: Path, with_index: bool, order: str
) -> None:
    """Without an index the picture's own head says that there is a map."""
    photo = gain_maps.photo()
    base = photo.base if with_index else gain_maps.with_head(photo.base, gain_maps.xmp_of(Numbers()))
    _, result = process(tmp_path, Photo(base, photo.gain_map, with_index, order).file(), max_edge_px=1200)
    assert_same_light(light_of(result), light_of_photo(photo, Numbers()))


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_map_turns_with_its_picture(tmp_path: Path, orientation: int) -> None:
    photo = gain_maps.photo(orientation=orientation)
    _, result = process(tmp_path, photo.file(), max_edge_px=1200)

    def turned(data: bytes) -> Image.Image:
        image = opened(data)
        pixels = Image.frombytes(image.mode, image.size, image.tobytes())
        pixels.info["exif"] = gain_maps.exif(orientation)
        return ImageOps.exif_transpose(pixels)

    assert_same_light(light_of(result), gain_maps.rendered(turned(photo.base), turned(photo.gain_map), Numbers()))


def test_a_viewer_without_hdr_sees_the_picture_of_a_file_without_map(tmp_path: Path) -> None:
    photo = gain_maps.photo(base=gain_maps.picture(3000, 2000), levels=gain_maps.map_picture(750, 500))
    _, kept = process(tmp_path, photo.file())
    _, dropped = process(tmp_path, photo.file(), keeps_hdr=False)
    assert gain_maps.read(dropped) is None
    assert opened(kept).tobytes() == opened(dropped).tobytes()
    assert Image.open(io.BytesIO(kept)).convert("RGB").tobytes() == opened(dropped).tobytes()


def test_a_picture_that_fills_the_budget_makes_room_without_losing_a_pixel(tmp_path: Path) -> None:
    photo = gain_maps.photo(base=gain_maps.grainy(1500, 1125))
    _, full = process(tmp_path, photo.file(), max_edge_px=1200, keeps_hdr=False)
    for spare in (0, 100, len(full) // 70):  # each time less than the map takes at least
        _, result = process(tmp_path, photo.file(), max_edge_px=1200, max_bytes=len(full) + spare)
        assert gain_maps.read(result) is not None
        assert opened(result).tobytes() == opened(full).tobytes()


def test_a_picture_without_room_for_its_map_loses_a_twentieth_of_its_bytes_at_most(tmp_path: Path) -> None:
    """Its map has as much grain as itself, so it takes more than tables of its own save."""
    photo = gain_maps.photo(base=gain_maps.grainy(1500, 1125), levels=gain_maps.grainy(750, 563).convert("L"))
    _, full = process(tmp_path, photo.file(), max_edge_px=1200, keeps_hdr=False)
    _, result = process(tmp_path, photo.file(), max_edge_px=1200, max_bytes=len(full))
    assert gain_maps.read(result) is not None
    first = result[: result.rindex(b"\xff\xd8\xff")]
    assert 0.93 * len(full) <= len(first) <= len(full)
    assert opened(result).size == opened(full).size


def test_chromium_shows_the_picture_of_a_file_without_map(tmp_path: Path, browser: Browser) -> None:
    """Its screen here has no headroom, as a common screen."""
    photo = gain_maps.photo()
    shown = []
    for keeps_hdr in (True, False):
        _, result = process(tmp_path, photo.file(), max_edge_px=800, keeps_hdr=keeps_hdr)
        page = browser.new_page(viewport={"width": 800, "height": 600})
        source = f"data:image/jpeg;base64,{base64.b64encode(result).decode()}"
        page.set_content(f'<style>body {{ margin: 0 }}</style><img src="{source}">')
        page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth == 800")
        shown.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        page.close()
    assert shown[0].tobytes() == shown[1].tobytes()
    assert np.abs(np.asarray(shown[0], dtype=int) - np.asarray(opened(result), dtype=int)).mean() < 1


def test_a_good_jpeg_keeps_its_pixels_bit_for_bit_beside_its_map(tmp_path: Path) -> None:
    photo = gain_maps.photo(base=gain_maps.picture(1200, 900), quality=97)
    _, result = process(tmp_path, photo.file())
    assert opened(result).tobytes() == opened(photo.base).tobytes()
    assert_same_light(light_of(result), light_of_photo(photo, Numbers()))
    _, again = process(tmp_path, result)
    assert opened(again).tobytes() == opened(photo.base).tobytes()
    assert_same_light(light_of(again), light_of_photo(photo, Numbers()))


def test_a_map_of_one_gain_suits_a_picture_of_other_primaries(tmp_path: Path) -> None:
    """One gain for all channels is the same gain after the picture's change to sRGB."""
    photo = gain_maps.photo(icc_profile=profiles.rgb_profile(profiles.DISPLAY_P3))
    processed, result = process(tmp_path, photo.file(), max_edge_px=1200)
    _, plain = process(tmp_path, photo.file(), max_edge_px=1200, keeps_hdr=False)
    assert_same_light(light_of(result), gain_maps.rendered(opened(plain), opened(photo.gain_map), Numbers()))
    assert processed.width_px == 1200


def test_large_variants_keep_the_map_and_small_ones_drop_it(tmp_path: Path) -> None:
    photo = gain_maps.photo()
    wanted = [VariantSpec.within(name, edge_px) for name, edge_px in (("large", 1000), ("edge", 640), ("small", 639))]
    process(tmp_path, photo.file(), variants=tuple(wanted))
    files = {each.name: variant_path(tmp_path / "target", each.name).read_bytes() for each in wanted}
    for name in ("large", "edge"):
        assert_same_light(light_of(files[name]), light_of_photo(photo, Numbers()))
    assert gain_maps.read(files["small"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("focus", [(0.0, 0.5), (0.8, 0.2)])
@pytest.mark.parametrize("shape", ["700x700", "400x800"])
def test_the_map_of_a_crop_is_cropped_around_the_same_point(
    tmp_path: Path, shape: str, focus: tuple[float, float]
) -> None:
    photo, spec = gain_maps.photo(), VariantSpec.parse(f"card:{shape}:cover:jpeg")
    process(tmp_path, photo.file(), variants=(spec,), focus=focus)
    whole = light_of_photo(photo, Numbers())
    size = whole.shape[1], whole.shape[0]
    left, top, right, bottom = map(round, box_for(size, spec.size_for(size), focus))
    found = light_of(variant_path(tmp_path / "target", "card").read_bytes())
    assert (found.shape[1], found.shape[0]) == spec.size_for(size)
    assert_same_light(found, whole[top:bottom, left:right])


@pytest.mark.parametrize("output_format", ["webp", "avif"])
def test_other_formats_have_no_map(tmp_path: Path, output_format: str) -> None:
    processed, result = process(tmp_path, gain_maps.photo().file(), output_format=output_format)
    assert processed.extension == output_format
    assert gain_maps.HDRGM.encode() not in result


@pytest.mark.slow
@pytest.mark.parametrize("max_bytes", [600_000, 200_000, 20_000])
@pytest.mark.parametrize("is_noise", [True, False])
def test_the_map_takes_a_tenth_of_the_budget_at_most(tmp_path: Path, max_bytes: int, is_noise: bool) -> None:
    """Of noise, a file is as large as it may be."""
    levels = noise(800, 600, 60).convert("L") if is_noise else gain_maps.map_picture()
    photo = gain_maps.photo(base=noise(1000, 750, 25), levels=levels)
    _, result = process(tmp_path, photo.file(), max_bytes=max_bytes)
    assert len(result) <= max_bytes
    read = gain_maps.read(result)
    if read is not None:
        added = sum(4 + len(payload) for marker, _, payload in gain_maps.segments(read.base) if marker in {0xE1, 0xE2})
        assert added + len(read.gain_map) <= 0.1 * max_bytes
    assert is_noise or (read is not None) == (max_bytes > 20_000), "a map that is too small to be of use is dropped"

"""Size of a result: at most the longest edge, and at least 75% of it if the decoder gives such a size."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from imaging_pictures import encoded, noise, quarters, run
from PIL import Image, ImageChops, ImageStat

from dream.imaging import Limits
from dream.imaging.decode import decode, open_image
from dream.imaging.transform import resize, swatch


def jpeg(size: tuple[int, int]) -> bytes:
    return encoded(Image.new("L", size, 90), "JPEG")


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((4032, 3024), (2016, 1512)),
        ((4640, 3480), (2320, 1740)),
        ((8064, 6048), (2016, 1512)),
        ((3000, 4033), (1500, 2017)),
        ((5120, 40), (2560, 20)),
    ],
)
def test_a_size_that_the_decoder_gives_is_taken_as_it_is(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    decoded = decode(open_image(io.BytesIO(jpeg(size)), Limits()), Limits())
    assert decoded.image.size == decoded.fitted_px == fitted


@pytest.mark.parametrize(("size", "read"), [((3264, 2448), (3264, 2448)), ((5400, 4050), (2700, 2025))])
def test_where_none_is_in_the_band_the_longest_edge_is_met(size: tuple[int, int], read: tuple[int, int]) -> None:
    decoded = decode(open_image(io.BytesIO(jpeg(size)), Limits()), Limits())
    assert (decoded.image.size, decoded.fitted_px) == (read, (2560, 1920))


@pytest.mark.parametrize("edge_px", [2560, 1920, 1008, 320])
def test_a_whole_share_meets_the_longest_edge_exactly(edge_px: int) -> None:
    limits = Limits(max_edge_px=edge_px, least_edge_share=1.0)
    decoded = decode(open_image(io.BytesIO(jpeg((4032, 3024))), limits), limits)
    assert max(decoded.fitted_px) == edge_px
    assert min(*decoded.image.size) >= min(*decoded.fitted_px)


def test_pixels_give_way_to_three_quarters_of_the_edge_before_quality_does(tmp_path: Path) -> None:
    soft = [Image.effect_noise((300, 200), 30).resize((1200, 800)) for _ in range(2)]
    picture = Image.merge(
        "YCbCr", [Image.effect_noise((1200, 800), 30), *soft]
    )  # as photos are: grained, of soft colours
    data = encoded(picture.convert("RGB"), "PNG", compress_level=1)
    best, _ = run(tmp_path, data, max_edge_px=1200)
    tables = []
    for share, edges in ((0.8, range(900, 1200)), (0.45, range(895, 905))):
        processed, out = run(tmp_path, data, max_edge_px=1200, max_bytes=round(best.size_bytes * share))
        assert processed.width_px in edges
        tables.append(sum(out.quantization[0]))  # type: ignore[attr-defined]
    _, loose = run(tmp_path, data, max_edge_px=1200)
    assert tables[0] == sum(loose.quantization[0])  # type: ignore[attr-defined]
    assert tables[1] > tables[0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "LA"])
def test_the_filter_is_pillows_lanczos(mode: str) -> None:
    """But for what two implementations round, on edges and on noise."""
    picture = quarters(200, 120)
    picture.paste(noise(80, 60, sigma=60), (60, 30))
    image = picture.convert("RGBA").convert(mode) if mode == "LA" else picture.convert(mode)
    ours, pillows = resize(image, (77, 46)), image.resize((77, 46), Image.Resampling.LANCZOS)
    assert ours.mode == pillows.mode == mode
    difference = ImageChops.difference(ours, pillows)
    assert max(ImageStat.Stat(difference).mean) < 0.5
    assert max(high for _, high in ImageStat.Stat(difference).extrema) <= 16


def test_a_swatch_is_small_and_means_what_it_covers() -> None:
    stripes = Image.new("L", (4000, 1000), 0)
    for left in range(0, 4000, 2):
        stripes.paste(200, (left, 0, left + 1, 1000))
    small = swatch(stripes)
    assert small.size == (32, 8)
    low, high = small.getextrema()
    assert 95 <= low <= high <= 105  # type: ignore[operator]
    assert swatch(small) is small

"""The byte budget holds, quality is what it can be, and nothing private is in the result."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from imaging_pictures import encoded, noise, quarters, run
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.JpegImagePlugin import JpegImageFile

from dream.errors import ImageRejected
from dream.imaging import Limits, process_file
from dream.imaging.encode import JPEG
from tests import gain_maps


@pytest.mark.parametrize("max_bytes", [2_000, 20_000, 150_000, 400_000])
def test_noise_meets_the_budget_and_uses_it(tmp_path: Path, max_bytes: int) -> None:
    processed, out = run(tmp_path, encoded(noise(800, 600), "PNG"), max_bytes=max_bytes)
    assert processed.size_bytes <= max_bytes
    assert processed.size_bytes > max_bytes * 0.6
    assert abs(out.width / out.height - 4 / 3) < 0.05


@pytest.mark.parametrize("max_bytes", [3_000, 60_000])
def test_transparent_noise_meets_the_budget(tmp_path: Path, max_bytes: int) -> None:
    picture = noise(500, 400)
    picture.putalpha(Image.effect_noise((500, 400), 200))
    processed, _ = run(tmp_path, encoded(picture, "PNG"), max_bytes=max_bytes)
    assert processed.extension == "webp"
    assert processed.size_bytes <= max_bytes


def test_quality_gives_way_before_pixels(tmp_path: Path) -> None:
    """A budget of nine tenths of what the best would take keeps all pixels."""
    data = encoded(noise(400, 300, sigma=30), "PNG")
    best, _ = run(tmp_path, data)
    processed, out = run(tmp_path, data, max_bytes=best.size_bytes * 9 // 10)
    assert out.size == (400, 300)
    assert best.size_bytes * 0.75 < processed.size_bytes <= best.size_bytes * 9 // 10


def tables_of(folder: Path, picture: Image.Image, quality: float) -> tuple[dict[int, list[int]], int]:
    """The quantisation tables of the picture's JPEG, and its bytes."""
    path = folder / "result"
    JPEG.save(picture, path, quality)
    with JpegImageFile(path) as written:
        return dict(written.quantization), path.stat().st_size


@pytest.mark.parametrize(
    ("quality", "first", "last"),
    [(97, [1, 1, 1, 1, 2, 2, 3, 5], 25), (90, [3, 3, 3, 4, 5, 7, 11, 17], 84), (80, [6, 6, 6, 7, 10, 15, 22, 34], 167)],
)
def test_a_whole_quality_has_the_numbers_of_libjpeg(tmp_path: Path, quality: int, first: list[int], last: int) -> None:
    """Results of the highest and the lowest quality are those of earlier releases, byte for byte."""
    tables, _ = tables_of(tmp_path, noise(64, 64), quality)
    assert tables[0] == tables[1]
    assert (tables[0][:8], tables[0][-1]) == (first, last)


@pytest.mark.parametrize("whole", [96, 89, 85, 80])
def test_the_qualities_between_two_whole_ones_take_small_steps(tmp_path: Path, whole: int) -> None:
    """Bytes fall by 3% at most, and no number of a table gets better."""
    picture = gain_maps.grainy(600, 450)
    steps = [tables_of(tmp_path, picture, whole + 1 - eighth / 8) for eighth in range(9)]
    for (better, more_bytes), (worse, fewer_bytes) in itertools.pairwise(steps):
        assert 0.97 * more_bytes <= fewer_bytes <= more_bytes
        assert all(a <= b for name in better for a, b in zip(better[name], worse[name], strict=True))
    assert steps[-1][1] < steps[0][1]


def test_a_small_picture_is_left_at_its_size(tmp_path: Path) -> None:
    processed, out = run(tmp_path, encoded(quarters(), "PNG"))
    assert out.size == (160, 96)
    assert processed.size_bytes < 5_000


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000), (1, 1), (1, 3000)])
def test_extreme_shapes_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    _, out = run(tmp_path, encoded(Image.new("RGB", size, "red"), "PNG"), max_edge_px=1000)
    assert max(out.size) == min(1000, max(size))
    assert min(out.size) >= 1


def test_worst_case_noise_still_encodes(tmp_path: Path) -> None:
    """Black and white at random is three bits a pixel without any loss; JPEG takes more than eight."""
    picture = Image.merge("RGB", [band.point(lambda value: 255 * (value > 128)) for band in noise(500, 500).split()])
    processed, _ = run(tmp_path, encoded(picture, "PNG"))
    assert processed.size_bytes > 90_000


def test_a_budget_that_no_picture_meets_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded(noise(64, 64), "PNG"))
    with pytest.raises(ImageRejected, match="cannot be stored in 100 bytes"):
        process_file(source, target, Limits(max_bytes=100))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def private_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Artist] = "PRIVATE artist"
    exif[Base.Orientation] = 6
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSMapDatum] = "PRIVATE place"
    return exif


@pytest.mark.parametrize("alpha", [255, 100])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_nothing_private_is_in_the_result(tmp_path: Path, kind: str, alpha: int) -> None:
    """Exif with a place, XMP and comments are in what goes in, and not in what comes out."""
    picture = quarters().convert("RGBA")
    picture.putalpha(alpha)
    if kind == "JPEG":
        picture = picture.convert("RGB")
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>PRIVATE words</x:xmpmeta>"
    options = {"comment": b"PRIVATE comment"} if kind == "JPEG" else {}
    if kind in {"JPEG", "WEBP", "AVIF"}:
        options["xmp"] = xmp
    data = encoded(picture, kind, exif=private_exif(), **options)
    assert b"PRIVATE" in data
    _, out = run(tmp_path, data)
    written = (tmp_path / "target").read_bytes()
    assert b"PRIVATE" not in written
    assert b"Exif" not in written
    assert b"xmpmeta" not in written
    assert not out.getexif()
    assert "comment" not in out.info


def test_a_gif_comment_is_dropped(tmp_path: Path) -> None:
    run(tmp_path, encoded(quarters(), "GIF", comment=b"PRIVATE comment"))
    assert b"PRIVATE" not in (tmp_path / "target").read_bytes()

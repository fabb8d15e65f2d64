"""Variants come from the one decode: beside the picture, in its shape, never larger than it."""

from __future__ import annotations

from pathlib import Path

from imaging_pictures import encoded, noise, quarters
from PIL import Image

from dream.imaging import Limits, Processed, VariantSize, process_file, variant_path


def processed(folder: Path, image: Image.Image, *variants: VariantSize, max_bytes: int = 2**20) -> Processed:
    source = folder / "source"
    source.write_bytes(encoded(image, "PNG"))
    return process_file(source, folder / "target", Limits(variants=variants, max_bytes=max_bytes))


def test_each_variant_that_is_wanted_is_a_file_beside_the_picture(tmp_path: Path) -> None:
    sizes = (VariantSize("thumb", 320), VariantSize("medium", 800))
    made = processed(tmp_path, noise(1200, 900), *sizes).variants
    assert [(each.name, each.width_px, each.height_px) for each in made] == [("thumb", 320, 240), ("medium", 800, 600)]
    for each in made:
        path = variant_path(tmp_path / "target", each.name)
        with Image.open(path) as stored:
            assert stored.size == (each.width_px, each.height_px)
        assert path.stat().st_size == each.size_bytes
        assert (each.content_type, each.extension) == ("image/jpeg", "jpg")


def test_a_variant_is_never_larger_than_the_picture(tmp_path: Path) -> None:
    [made] = processed(tmp_path, noise(200, 100), VariantSize("large", 4000)).variants
    assert (made.width_px, made.height_px) == (200, 100)


def test_a_variant_keeps_to_the_byte_budget(tmp_path: Path) -> None:
    [made] = processed(tmp_path, noise(1200, 900), VariantSize("large", 1200), max_bytes=40_000).variants
    assert made.size_bytes <= 40_000


def test_a_transparent_picture_has_transparent_variants(tmp_path: Path) -> None:
    image = noise(400, 400)
    image.putalpha(Image.linear_gradient("L").resize((400, 400)))
    [made] = processed(tmp_path, image, VariantSize("thumb", 100)).variants
    assert made.extension == "webp"
    with Image.open(variant_path(tmp_path / "target", "thumb")) as stored:
        assert stored.mode == "RGBA"


def test_without_wish_there_is_none(tmp_path: Path) -> None:
    assert processed(tmp_path, quarters()).variants == ()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


def test_a_jpeg_that_is_kept_as_it_is_has_variants(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded(quarters(900, 600), "JPEG", quality=97))
    wanted = (VariantSize("thumb", 160), VariantSize("medium", 500), VariantSize("large", 2000))
    processed = process_file(source, target, Limits(variants=wanted))
    assert target.read_bytes() == source.read_bytes()
    assert [(each.width_px, each.height_px) for each in processed.variants] == [(160, 107), (500, 333), (900, 600)]

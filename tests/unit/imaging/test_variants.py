"""Variants come from the one decode: beside the picture, in its shape, never larger than it."""

from __future__ import annotations

from pathlib import Path

from imaging_pictures import encoded, noise, quarters
from PIL import Image

from dream.imaging import Limits, Processed, VariantSpec, process_file, variant_path
from dream.variants import FULL


def processed(folder: Path, image: Image.Image, *variants: VariantSpec, max_bytes: int = 2**20) -> Processed:
    source = folder / "source"
    source.write_bytes(encoded(image, "PNG"))
    return process_file(source, folder / "target", Limits(variants=variants, max_bytes=max_bytes))


def test_each_variant_that_is_wanted_is_a_file_beside_the_picture(tmp_path: Path) -> None:
    sizes = (VariantSpec.within("thumb", 320), VariantSpec.within("medium", 800))
    made = processed(tmp_path, noise(1200, 900), *sizes).variants
    assert [(each.name, each.width_px, each.height_px) for each in made] == [("thumb", 320, 240), ("medium", 800, 600)]
    for each in made:
        path = variant_path(tmp_path / "target", each.name)
        with Image.open(path) as stored:
            assert stored.size == (each.width_px, each.height_px)
        assert path.stat().st_size == each.size_bytes
        assert (each.content_type, each.extension) == ("image/jpeg", "jpg")


def test_a_variant_is_never_larger_than_the_picture(tmp_path: Path) -> None:
    [made] = processed(tmp_path, noise(200, 100), VariantSpec.within("large", 4000)).variants
    assert (made.width_px, made.height_px) == (200, 100)


def test_a_variant_keeps_to_the_byte_budget(tmp_path: Path) -> None:
    [made] = processed(tmp_path, noise(1200, 900), VariantSpec.within("large", 1200), max_bytes=40_000).variants
    assert made.size_bytes <= 40_000


def test_a_transparent_picture_has_transparent_variants(tmp_path: Path) -> None:
    image = noise(400, 400)
    image.putalpha(Image.linear_gradient("L").resize((400, 400)))
    [made] = processed(tmp_path, image, VariantSpec.within("thumb", 100)).variants
    assert made.extension == "webp"
    with Image.open(variant_path(tmp_path / "target", "thumb")) as stored:
        assert stored.mode == "RGBA"


def test_without_wish_there_is_none(tmp_path: Path) -> None:
    assert processed(tmp_path, quarters()).variants == ()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


def test_a_jpeg_that_is_kept_as_it_is_has_variants(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded(quarters(900, 600), "JPEG", quality=97))
    wanted = (VariantSpec.within("thumb", 160), VariantSpec.within("medium", 500), VariantSpec.within("large", 2000))
    processed = process_file(source, target, Limits(variants=wanted))
    assert target.read_bytes() == source.read_bytes()
    assert [(each.width_px, each.height_px) for each in processed.variants] == [(160, 107), (500, 333), (900, 600)]


# --- the ladder of `DREAM_WIDTHS`


LADDER = tuple(map(VariantSpec.rung, (100, 300, 500, 900, 1200)))


def test_a_ladder_has_only_rungs_that_are_narrower_than_the_picture(tmp_path: Path) -> None:
    made = processed(tmp_path, noise(500, 1000), *LADDER).variants
    assert [(each.name, each.width_px, each.height_px) for each in made] == [("w100", 100, 200), ("w300", 300, 600)]


def test_a_kept_jpeg_has_the_rungs_below_its_own_width(tmp_path: Path) -> None:
    """Its pixels are decoded at a reduced scale, for the widest rung only."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded(quarters(901, 1301), "JPEG", quality=97))
    made = process_file(source, target, Limits(variants=LADDER))
    assert target.read_bytes() == source.read_bytes()
    assert [(each.name, each.width_px) for each in made.variants] == [(f"w{px}", px) for px in (100, 300, 500, 900)]


def test_a_picture_that_the_budget_made_smaller_has_no_rung_of_its_width(tmp_path: Path) -> None:
    made = processed(tmp_path, noise(1300, 900, sigma=90), *LADDER, max_bytes=60_000)
    assert made.width_px < 1200
    assert max(each.width_px for each in made.variants) < made.width_px


def test_an_animation_has_no_ladder(tmp_path: Path) -> None:
    """A rung would show its first frame only."""
    source = tmp_path / "source"
    frames = [noise(400, 300), noise(400, 300)]
    frames[0].save(source, format="GIF", save_all=True, append_images=frames[1:], duration=100)
    wanted = (VariantSpec.within("thumb", 100), *LADDER)
    assert [each.name for each in process_file(source, tmp_path / "target", Limits(variants=wanted)).variants] == [
        "thumb"
    ]


def test_a_rung_of_an_animation_that_is_asked_for_would_lose_its_motion(tmp_path: Path) -> None:
    """In any format. A variant of another name may be a still."""
    source = tmp_path / "source"
    frames = [noise(400, 300), noise(400, 300)]
    frames[0].save(source, format="GIF", save_all=True, append_images=frames[1:], duration=100)
    rung = VariantSpec.rung(100)
    for spec, loses in (
        (rung, True),
        (rung._replace(format="avif"), True),
        (VariantSpec(FULL, 400, 400, format="webp"), True),
        (VariantSpec.within("thumb", 100), False),
    ):
        assert process_file(source, tmp_path / "target", Limits().making(spec, 400, None)).loses_motion == loses
    source.write_bytes(encoded(noise(400, 300), "PNG"))
    assert not process_file(source, tmp_path / "target", Limits().making(rung, 400, None)).loses_motion

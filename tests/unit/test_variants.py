"""The grammar of variants: what settings say and rows keep."""

from __future__ import annotations

import pytest

from dream.variants import VariantSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("thumb:320", VariantSpec("thumb", 320, 320)),
        ("card:640x480:cover", VariantSpec("card", 640, 480, "cover")),
        ("square:200:cover:70", VariantSpec("square", 200, 200, "cover", quality=70)),
        ("hero:1920x:webp:80", VariantSpec("hero", 1920, None, format="webp", quality=80)),
        ("column:x900:avif", VariantSpec("column", None, 900, format="avif")),
        ("box:640x480:fit", VariantSpec("box", 640, 480)),
    ],
)
def test_an_item_names_box_fit_format_and_quality(text: str, spec: VariantSpec) -> None:
    assert VariantSpec.parse(text) == spec
    assert VariantSpec.of_row(spec.row) == spec


def test_a_rung_is_a_width_and_is_named_after_it() -> None:
    assert VariantSpec.rung(640) == VariantSpec.parse("w640:640x")
    assert VariantSpec.rung(640).is_rung
    assert not any(VariantSpec.parse(text).is_rung for text in ("w640:640", "w640:640x:webp", "w320:640x", "a:x640"))


def test_rows_of_older_releases_have_a_longest_edge() -> None:
    assert VariantSpec.of_row(["thumb", 320]) == VariantSpec.within("thumb", 320)


def test_an_older_release_can_read_the_row_of_a_plain_longest_edge() -> None:
    assert VariantSpec.parse("thumb:320").row == ["thumb", 320]


def test_definitions_are_equal_where_pixels_are() -> None:
    assert VariantSpec.parse("a:200x200:fit").definition == VariantSpec.parse("b:200").definition == "200"
    assert VariantSpec.parse("a:640x480:80:cover").definition == "640x480:cover:80"


@pytest.mark.parametrize(
    ("text", "source", "size"),
    [
        ("v:320", (4000, 3000), (320, 240)),
        ("v:320", (200, 100), (200, 100)),
        ("v:640x", (4000, 3000), (640, 480)),
        ("v:x480", (3000, 4000), (360, 480)),
        ("v:640x480", (4000, 1000), (640, 160)),
        ("v:640x480:cover", (4000, 1000), (640, 480)),
        # Smaller than the box: the largest part of its shape.
        ("v:640x480:cover", (320, 480), (320, 240)),
        ("v:16", (5000, 1), (16, 1)),
    ],
)
def test_a_variant_is_never_larger_than_its_picture(text: str, source: tuple[int, int], size: tuple[int, int]) -> None:
    assert VariantSpec.parse(text).size_for(source) == size


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("320", "the name '320'|the size"),
        ("Thumb:320", "the name 'Thumb' must be"),
        ("thumb:x", "the size must be"),
        ("thumb:15", "in 16 to 16383 pixels"),
        ("thumb:320x:cover", "cover needs a width and a height"),
        ("thumb:320:gif", "'gif' must be fit, cover, jpeg, webp, avif, or a quality"),
        ("thumb:320:101", "'101' must be"),
    ],
)
def test_a_wrong_item_says_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        VariantSpec.parse(text)


@pytest.mark.parametrize("text", ["card:640x480:cover", "card:640:cover:avif:60", "thumb:320"])
def test_a_recipe_is_read_as_it_was_written(text: str) -> None:
    """A focal point is a part of it where a crop keeps it."""
    spec, focus = VariantSpec.parse(text), (0.25, 1.0)
    read = VariantSpec.of_recipe(spec.name, spec.recipe(focus))
    assert read == (spec, focus if spec.fit == "cover" else None)
    assert VariantSpec.of_recipe(spec.name, spec.recipe(None)) == (spec, None)


@pytest.mark.parametrize("recipe", ["", "@", "64x64:cover@0.5", "64x64:cover@nan,0", "64x64:cover@1.000001,0.0"])
def test_a_recipe_that_is_none_is_refused(recipe: str) -> None:
    with pytest.raises(ValueError, match=r"size|focal point"):
        VariantSpec.of_recipe("a", recipe)

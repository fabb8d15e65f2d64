"""Public fields and formats of a picture have one source: rows, events, lists, the page and the docs agree."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from dream.db import DreamImage
from dream.imaging import OutputFormat, Processed, Variant
from dream.imaging.encode import AVIF, JPEG, WEBP
from dream.messages.pictures import (
    KNOWN,
    LISTED,
    OUTPUT_FORMATS,
    DeletionError,
    FileFormat,
    ImageError,
    ImageInfo,
    ImageRef,
    PhotoFacts,
    VariantRef,
    image_error,
    image_info,
    image_ref,
)
from dream.messages.states import ImageState
from dream.pictures import Picture
from dream.settings import Settings
from dream.storage.keys import EXTENSIONS

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
STATIC = ROOT / "dream/gateway/static"
PAGE = "".join(path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("client/*.js")))


def names(kind: type) -> list[str]:
    return list(get_type_hints(kind))


def row_of(text: str) -> str:
    """The one row of the contract's tables that begins so."""
    (row,) = re.findall(rf"^{re.escape(text)}.*$", CONTRACT, re.MULTILINE)
    return str(row)


def test_the_contract_lists_the_fields_of_a_picture_in_their_order() -> None:
    listed = row_of("| `GET /api/dreams/<dream_id>/images` |").partition("of the text:")[2]
    assert re.findall(r"`(\w+)`", listed.partition("; and `retry`")[0]) == names(ImageInfo)


def test_the_contract_lists_the_facts_of_a_stored_picture_in_an_event() -> None:
    assert re.findall(r"`([a-z_]+)`", row_of("| `images` |").partition("also")[2]) == [
        *KNOWN,
        "focus",
        "srcset",
        "duplicate_of",
    ]


def test_the_contract_and_the_docs_list_the_facts_about_a_photo() -> None:
    shown = row_of("| `GET /api/dreams/<dream_id>/images/<id>` |").partition("known of")[2]
    assert re.findall(r"`(\w+)`", shown) == names(PhotoFacts)
    pictures = (ROOT / "docs/images.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in pictures for name in names(PhotoFacts))


def test_the_contract_lists_the_fields_of_variants_and_failures() -> None:
    for kind in (VariantRef, ImageError, DeletionError):
        assert "{" + ", ".join(f'"{name}"' for name in names(kind)) + "}" in CONTRACT


def test_the_page_reads_no_field_of_a_picture_that_is_not_there() -> None:
    read = set(re.findall(r"\bpicture\.(\w+)", PAGE))
    assert {"url", "state"} <= read
    signed = re.findall(r"`(signed_\w+)`", row_of("| the same with `DREAM_MEDIA_ACCESS=signed` |"))
    # The client adds these, and its types say so.
    own = {"progress", "step", "retry", "preview", "facts"}
    assert all(f"  {name}?:" in (STATIC / "dream-client.d.ts").read_text(encoding="utf-8") for name in own)
    assert read <= {*names(ImageInfo), *names(ImageRef), *signed, *own}


def test_a_row_has_a_column_for_each_field() -> None:
    assert set(LISTED) <= set(DreamImage.__table__.columns.keys())
    assert set(KNOWN) < set(LISTED)
    assert "facts" not in {*LISTED, *names(ImageInfo), *names(ImageRef)}  # for the owner alone
    assert set(names(ImageRef)) <= {*LISTED, "srcset"}


def test_processing_finds_every_fact() -> None:
    found = {field.name for field in dataclasses.fields(Processed)}
    assert found == {*KNOWN, "extension", "facts", "loses_hdr", "loses_motion", "perceptual_hash"}
    assert {field.name for field in dataclasses.fields(Variant)} | {"url"} == {*names(VariantRef), "extension"}


def test_a_row_is_shown_with_exactly_these_fields() -> None:
    row = DreamImage(id=1, position=3, state=ImageState.FAILED, filename="a.jpg", task_id="t", error="it is damaged")
    assert list(image_info(row)) == [*LISTED, "status", "srcset"]
    assert set(image_info(row)) == set(names(ImageInfo))
    assert image_ref(row) == {"id": 1, "url": "", "position": 3}
    assert image_error(row) == {"name": "a.jpg", "position": 3, "error": "it is damaged", "code": ""}


def test_python_has_a_picture_with_the_fields_of_lists() -> None:
    """`state` is `status`, and `srcset` is a property: its URLs are for pages."""
    assert names(Picture) == [name for name in names(ImageInfo) if name not in {"status", "srcset"}]


def test_an_event_names_a_duplicate_only() -> None:
    assert image_ref(stored(duplicate_of=7))["duplicate_of"] == image_info(stored(duplicate_of=7))["duplicate_of"] == 7
    assert "duplicate_of" not in image_ref(stored())


# --- srcset


def rung(width: int, name: str = "") -> dict[str, Any]:
    return {"name": name or f"w{width}", "url": f"https://x/a_w{width}.jpg", "width_px": width}


def stored(*variants: dict[str, Any], **values: Any) -> DreamImage:
    about = {"url": "https://x/a.jpg", "width_px": 1000, "height_px": 500, "task_id": "t", "filename": "a.jpg"}
    return DreamImage(id=1, position=0, state=ImageState.COMPLETED, variants=list(variants), **about | values)


def test_srcset_has_the_ladder_and_the_picture_by_width() -> None:
    image = stored(rung(640), rung(320))
    srcset = "https://x/a_w320.jpg 320w, https://x/a_w640.jpg 640w, https://x/a.jpg 1000w"
    assert image_ref(image)["srcset"] == image_info(image)["srcset"] == srcset


@pytest.mark.parametrize(
    "image",
    [
        stored(),
        stored(rung(320, "thumb"), rung(640, "w320"), rung(480, "card")),
        stored(rung(1000), rung(2000)),
        stored(rung(320), width_px=None),
        stored(rung(320), url=None),
    ],
    ids=["no variant", "no rung", "none narrower", "no width", "no url"],
)
def test_a_picture_of_one_width_has_no_srcset(image: DreamImage) -> None:
    """A variant of another name may be a crop."""
    assert "srcset" not in image_ref(image)
    assert image_info(image)["srcset"] is None


# --- formats


def test_the_formats_of_settings_limits_keys_and_encoders_are_the_same() -> None:
    wanted = {"auto", *OUTPUT_FORMATS}
    assert set(get_args(OutputFormat)) == wanted
    assert set(get_args(Settings.model_fields["output_format"].annotation)) == wanted
    assert {each.extension for each in OUTPUT_FORMATS.values()} <= set(EXTENSIONS)
    assert set(EXTENSIONS) == {"jpg", "webp", "avif", "png", "gif"}


@pytest.mark.parametrize(("name", "kind"), [("jpeg", JPEG), ("webp", WEBP), ("avif", AVIF)])
def test_an_encoder_writes_its_format(name: str, kind: FileFormat) -> None:
    assert (kind.content_type, kind.extension) == OUTPUT_FORMATS[name]

"""A picture's public fields, listed once: events, lists, rows and the page have them from here.

To add a field, name it here and in `docs/contract.md`, and add its column (`dream.db.models.DreamImage`); tests hold
all three together.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, cast

from typing_extensions import TypedDict

from dream.messages.srcset import srcset_of
from dream.messages.states import ImageState, Step

__all__ = [
    "KNOWN",
    "LISTED",
    "OUTPUT_FORMATS",
    "DeletionError",
    "FileFormat",
    "ImageError",
    "ImageFacts",
    "ImageInfo",
    "ImageRef",
    "ImageStep",
    "PhotoFacts",
    "StoredVariant",
    "VariantRef",
    "image_error",
    "image_info",
    "image_ref",
    "image_step",
]


class FileFormat(NamedTuple):
    """A format of processed pictures: its media type, and the extension of its keys without a dot."""

    content_type: str
    extension: str


#: The formats of processed pictures, by the values of `DREAM_OUTPUT_FORMAT`.
OUTPUT_FORMATS = {
    "jpeg": FileFormat("image/jpeg", "jpg"),
    "webp": FileFormat("image/webp", "webp"),
    "avif": FileFormat("image/avif", "avif"),
}


class VariantRef(TypedDict):
    """A variant of a picture, as rows, lists and events have it."""

    #: Its name in the settings. A version that was made because of a browser's `Accept` has its format behind a dot:
    #: `card.avif`; `full.avif` is the picture itself.
    name: str
    url: str
    width_px: int
    height_px: int
    size_bytes: int
    content_type: str


class StoredVariant(VariantRef, total=False):
    """A variant as its picture's row has it."""

    #: The key of its object, if its URL does not end with it.
    key: str
    #: Its recipe (`VariantSpec.recipe`), if that is not the definition in `wanted_variants`.
    made_as: str
    #: The number of runs that did not make it anew, because its picture got another focal point before they began.
    left: int


class ImageFacts(TypedDict, total=False):
    """The facts of a stored picture; processing finds them."""

    width_px: int
    height_px: int
    size_bytes: int
    content_type: str
    #: A ThumbHash in base64.
    placeholder: str
    #: `#rrggbb`
    dominant_colour: str
    #: The found focal point: `[x, y]`, each 0 to 1, from the top left.
    found_focus: list[float]
    variants: list[VariantRef]


class PhotoFacts(TypedDict, total=False):
    """Time, place and camera of a photo; only its owner reads them, and unknown facts are left out."""

    #: ISO 8601, with the offset from UTC if the camera knew it.
    taken_at: str
    #: Degrees of WGS 84, north and east positive.
    latitude: float
    longitude: float
    #: Above the sea.
    altitude_m: float
    make: str
    model: str
    lens: str
    focal_length_mm: float
    exposure_s: float
    f_number: float
    iso: int


class ImageRef(ImageFacts):
    """A picture as events name it; unknown facts are left out."""

    id: int
    url: str
    position: int
    #: The focal point that the owner gave; crops keep it instead of the found one.
    focus: NotRequired[list[float]]
    #: For `<img>`: the widths of `DREAM_WIDTHS` and the picture itself; left out if there is one width only.
    srcset: NotRequired[str]
    #: The id of another picture of the dream with the same upload, which was stored when this one was completed.
    duplicate_of: NotRequired[int]


class ImageError(TypedDict):
    """A picture that failed, as events name it."""

    name: str
    position: int
    #: For its owner.
    error: str
    #: For programs; empty if an older release refused the picture.
    code: str


class ImageStep(TypedDict):
    """The step of a picture of an upload, as events name it."""

    id: int
    name: str
    position: int
    #: One of `Step`.
    step: str


class DeletionError(TypedDict):
    """A picture that was not deleted, as events name it; `id` is the caller's own."""

    id: int
    url: str
    error: str
    code: str


class ImageInfo(TypedDict):
    """A picture as its owner lists it, over REST or from Python; a value that is not known (yet) is None."""

    id: int
    url: str | None
    position: int
    #: One of `ImageState`; `status` is the same.
    state: str
    status: str
    filename: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    content_type: str | None
    placeholder: str | None
    dominant_colour: str | None
    #: As in `ImageFacts` and `ImageRef`.
    found_focus: list[float] | None
    focus: list[float] | None
    variants: list[VariantRef]
    #: As in `ImageRef`; None if there is one width only.
    srcset: str | None
    duplicate_of: int | None
    #: The reason of a failure, for its owner and for programs.
    error: str | None
    error_code: str | None
    task_id: str


_STEPS = {
    ImageState.PENDING: Step.STAGED,
    ImageState.PROCESSING: Step.PROCESSING,
    ImageState.COMPLETED: Step.STORED,
    ImageState.FAILED: Step.FAILED,
}
#: The names of `ImageFacts`.
KNOWN = tuple(ImageFacts.__annotations__)
#: The columns of a picture's row that lists show.
LISTED = tuple(name for name in ImageInfo.__annotations__ if name not in {"status", "srcset"})


def image_ref(image: Any) -> ImageRef:
    """A stored picture as events name it, from its row or from the columns `LISTED`."""
    facts = {name: value for name in KNOWN if (value := _shown(image, name))}  # older releases stored fewer
    added = {"focus": image.focus, "srcset": srcset_of(image), "duplicate_of": image.duplicate_of}
    ref = {"id": image.id, "url": image.url or "", "position": image.position, **facts}
    return cast("ImageRef", ref | {name: value for name, value in added.items() if value is not None})


def image_error(image: Any) -> ImageError:
    """A failed picture as events name it, from its row or from the columns `LISTED`."""
    return {
        "name": image.filename,
        "position": image.position,
        "error": image.error or "the picture failed",
        "code": image.error_code or "",
    }


def image_step(image: Any, step: Step | None = None) -> ImageStep | None:
    """The step of a picture as events name it, from its row or from the columns `LISTED`; None if it is deleted.

    Parameters:
      step: the step, if the caller knows more than the row.
    """
    known = step or _STEPS.get(image.state)
    if known is None:
        return None
    return {"id": image.id, "name": image.filename, "position": image.position, "step": str(known)}


def image_info(image: Any) -> ImageInfo:
    """A picture as its owner lists it, from its row or from the columns `LISTED`."""
    fields = {name: _shown(image, name) for name in LISTED}
    state = str(image.state)
    return cast("ImageInfo", {**fields, "state": state, "status": state, "srcset": srcset_of(image)})


def _shown(image: Any, name: str) -> Any:
    """The value of a public field; the keys of variants' objects stay in the row."""
    value = getattr(image, name)
    if name != "variants" or not value:
        return value
    return [{field: each[field] for field in each if field in VariantRef.__annotations__} for each in value]

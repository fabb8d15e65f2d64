"""Media types of accepted pictures: what file pickers offer, and what a direct upload may announce.

No decoder is imported here.
"""

from __future__ import annotations

from importlib.util import find_spec

from dream.errors import ImageRejected, Reason

__all__ = ["HAS_HEIF", "picker_types", "refusal_of_type"]

#: Whether Pillow was built with its decoder of AVIF, as its wheels are. Only the worker sees whether it can be loaded.
_HAS_AVIF = find_spec("PIL._avif") is not None
#: Whether the extra `heif` is installed.
HAS_HEIF = find_spec("pillow_heif") is not None

_TYPES = (
    *("image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/bmp"),
    *(("image/avif",) if _HAS_AVIF else ()),
)
#: With extensions too, because some systems do not know these media types.
_HEIF_TYPES = ("image/heic", "image/heif")
_HEIF = (*_HEIF_TYPES, ".heic", ".heif")


def picker_types() -> str:
    """The `accept` attribute of a file input.

    Without the extra `heif` it names no HEIC: a phone then sends a JPEG in its place.
    """
    return ",".join((*_TYPES, *(_HEIF if HAS_HEIF else ())))


def refusal_of_type(content_type: str) -> ImageRejected | None:
    """The error that refuses a file of a media type; None if its format is accepted.

    The client only claims the type; the worker recognises the format by the file's first bytes.
    """
    if content_type in _TYPES or (HAS_HEIF and content_type in _HEIF_TYPES):
        return None
    if content_type in _HEIF_TYPES:
        return ImageRejected.because(Reason.HEIC_NOT_SUPPORTED)
    accepted = ", ".join((*_TYPES, *(_HEIF_TYPES if HAS_HEIF else ())))
    return ImageRejected.because(Reason.NOT_AN_IMAGE, accepted=accepted)

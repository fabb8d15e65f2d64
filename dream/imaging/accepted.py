"""The accepted picture formats, as file pickers name them. Light: no decoder is imported."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["HAS_HEIF", "picker_types"]

#: Whether the extra `heif` is installed.
HAS_HEIF = find_spec("pillow_heif") is not None

_ALWAYS = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/bmp", "image/avif")
#: With extensions too, because some systems do not know these media types.
_HEIF = ("image/heic", "image/heif", ".heic", ".heif")


def picker_types() -> str:
    """The `accept` attribute of a file input.

    Without the extra `heif` it names no HEIC: a phone then sends a JPEG in its place.
    """
    return ",".join((*_ALWAYS, *(_HEIF if HAS_HEIF else ())))

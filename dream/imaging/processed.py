"""The description of a processed picture and of its variants: plain, frozen and picklable, for other processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dream.messages.pictures import PhotoFacts

__all__ = ["Processed", "Variant", "variant_path"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of a processed picture; its file is at `variant_path(target, name)`.

    Parameters:
      name: its name in the settings.
      width_px, height_px: its size, upright.
      size_bytes: the size of its file.
      content_type, extension: as in `Processed`.
    """

    name: str
    width_px: int
    height_px: int
    size_bytes: int
    content_type: str
    extension: str


@dataclass(frozen=True, kw_only=True)
class Processed:
    """A processed picture, as its row in the database describes it.

    Parameters:
      content_type: `image/jpeg`, `image/webp` or `image/avif`.
      extension: `jpg`, `webp` or `avif`, without a dot.
      width_px, height_px: its size, upright.
      size_bytes: the size of its file.
      placeholder: its ThumbHash in base64, at most 36 characters.
      dominant_colour: its most frequent colour, as `#rrggbb`.
      perceptual_hash: 64 bits in hex; similar pictures have similar ones (`dream.imaging.perceptual_hash`).
      found_focus: the found focal point, as shares of width and height from the top left (`dream.imaging.focus`).
      variants: the variants, in the wanted order.
      facts: for its owner only; None if the file has none, or if they are not kept.
      loses_motion: a variant alone: it is a still that pages would show in place of an animation.
      loses_hdr: a variant alone: it is in SDR, made from a source in HDR.
    """

    content_type: str
    extension: str
    width_px: int
    height_px: int
    size_bytes: int
    placeholder: str
    dominant_colour: str
    perceptual_hash: str
    found_focus: tuple[float, float]
    variants: tuple[Variant, ...] = ()
    facts: PhotoFacts | None = field(default=None, repr=False)
    loses_motion: bool = False
    loses_hdr: bool = False


def variant_path(target: Path, name: str) -> Path:
    """The path of the variant of that name: beside the picture, as `<target>.<name>`."""
    return target.with_name(f"{target.name}.{name}")

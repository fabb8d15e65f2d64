"""Pictures: decode, turn, convert, fit, encode. Pure, but for `direct`; no I/O but the files it is given.

Pillow is imported by the first call and not before: web processes import this package on their way to something else.
`dream.imaging.pool` runs `process_file` in processes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dream.fault_points import step
from dream.imaging.direct import process_image
from dream.imaging.limits import Limits, OutputFormat, VariantSize

__all__ = [
    "Limits",
    "OutputFormat",
    "Processed",
    "Variant",
    "VariantSize",
    "process_file",
    "process_image",
    "variant_path",
]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A smaller version of a processed picture; its file is at `variant_path(target, name)`.

    Parameters:
      name: as it was wanted.
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
      dominant_colour: the colour that most of it has, as `#rrggbb`.
      variants: the smaller versions that were wanted, in that order.
    """

    content_type: str
    extension: str
    width_px: int
    height_px: int
    size_bytes: int
    placeholder: str
    dominant_colour: str
    variants: tuple[Variant, ...] = ()


def variant_path(target: Path, name: str) -> Path:
    """Where the variant of that name lies: beside the picture, as `<target>.<name>`."""
    return target.with_name(f"{target.name}.{name}")


@step("decode")
def process_file(source: Path, target: Path, limits: Limits) -> Processed:
    """Process the picture in `source` and write the result to `target`, whatever the names of either.

    Variants go to files beside the target (`variant_path`). While it runs, tries lie there, too; a process that is
    killed leaves the last ones.

    Raises:
      ImageRejected: it is no picture that can be processed; the message is for its owner.
      OSError: a file could not be read or written.
      MemoryError: there was not enough memory.
    """
    from dream.imaging.pipeline import process

    return process(source, target, limits)

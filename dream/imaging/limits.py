"""What a picture may be on its way in, and must be on its way out.

`Limits` is plain, frozen and picklable: it travels to the processes of the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Limits", "VariantSize"]


class VariantSize(NamedTuple):
    """A smaller version that is wanted of each picture.

    Parameters:
      name: of `a-z`, `0-9`, `_` and `-`; part of its file's name and of its key.
      edge_px: its longest edge; never more than that of the picture itself.
    """

    name: str
    edge_px: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one run.

    Parameters:
      max_bytes: byte budget of the processed picture; it is never exceeded.
      max_edge_px: longest edge of the processed picture.
      max_jpeg_pixels: most pixels of a JPEG that comes in. It is decoded at a reduced scale, so it may be larger
        than the others.
      max_pixels: most pixels of a picture in any other format.
      max_source_bytes: largest file that comes in.
      max_source_edge_px: longest edge of a picture that comes in. 65,535 is what JPEG can express.
      variants: smaller versions that are wanted of it, each in at most `max_bytes`.
      max_jpeg_scans: most scans of a progressive JPEG. Encoders write about ten, the most thorough optimisers a few
        dozen; each scan is a pass over the whole picture, so a small file with thousands of them takes minutes.
    """

    max_bytes: int = 2**20
    max_edge_px: int = 2560
    max_jpeg_pixels: int = 100_000_000
    max_pixels: int = 40_000_000
    max_source_bytes: int = 32 * 2**20
    max_source_edge_px: int = 65_535
    max_jpeg_scans: int = 100
    variants: tuple[VariantSize, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that an operator has set."""
        return cls(
            max_bytes=settings.max_image_bytes,
            max_edge_px=settings.max_edge_px,
            max_jpeg_pixels=settings.max_jpeg_pixels,
            max_pixels=settings.max_pixels,
            max_source_bytes=settings.max_upload_bytes,
            variants=tuple(VariantSize(*variant) for variant in settings.variants),
        )

    def wanting(self, variants: Iterable[Sequence[Any]]) -> Limits:
        """The same bounds with these variants, `(name, longest edge)` each, instead of the operator's."""
        return replace(self, variants=tuple(VariantSize(name, edge_px) for name, edge_px in variants))

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size in pixels that a picture of `size` is reduced to: same shape, never larger, never below 1."""
        width, height = size
        longest = max(width, height)
        if longest <= self.max_edge_px:
            return size
        return (
            max(1, round(width * self.max_edge_px / longest)),
            max(1, round(height * self.max_edge_px / longest)),
        )

"""What a picture may be on its way in, and must be on its way out.

`Limits` is plain, frozen and picklable: it travels to the processes of the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Limits", "OutputFormat", "VariantSize"]

#: The format of processed pictures. `auto`: JPEG, or WebP where it is drawn, transparent or moves.
OutputFormat = Literal["auto", "jpeg", "webp", "avif"]


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
      least_edge_share: a longest edge of at least this share of `max_edge_px` is taken where it costs nothing to come
        by, as at the scales of a JPEG's decoder; 1 means that the longest edge is met exactly.
      output_format: what the picture becomes.
      max_jpeg_pixels: most pixels of a JPEG that comes in. It is decoded at a reduced scale, so it may be larger
        than the others.
      max_pixels: most pixels of a picture in any other format.
      max_source_bytes: largest file that comes in.
      max_source_edge_px: longest edge of a picture that comes in. 65,535 is what JPEG can express.
      max_frames: most frames of an animation.
      max_animation_pixels: most pixels of an animation that comes in, all frames together.
      max_decoding_bytes: the most memory that decoding a picture may take, estimated from its header.
      variants: smaller versions that are wanted of it, each in at most `max_bytes`.
      max_jpeg_scans: most scans of a progressive JPEG. Encoders write about ten, the most thorough optimisers a few
        dozen; each scan is a pass over the whole picture, so a small file with thousands of them takes minutes.
      max_parts: most segments of a JPEG, chunks of a PNG, frames and extensions of a GIF, where they hold no pixels.
    """

    max_bytes: int = 2**20
    max_edge_px: int = 2560
    least_edge_share: float = 0.75
    output_format: OutputFormat = "auto"
    max_jpeg_pixels: int = 100_000_000
    max_pixels: int = 40_000_000
    max_source_bytes: int = 32 * 2**20
    max_source_edge_px: int = 65_535
    max_jpeg_scans: int = 100
    max_parts: int = 10_000
    max_frames: int = 300
    max_animation_pixels: int = 200_000_000
    max_decoding_bytes: int = 640 * 2**20
    variants: tuple[VariantSize, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that an operator has set."""
        return cls(
            max_bytes=settings.max_image_bytes,
            max_edge_px=settings.max_edge_px,
            output_format=settings.output_format,
            max_jpeg_pixels=settings.max_jpeg_pixels,
            max_pixels=settings.max_pixels,
            max_source_bytes=settings.max_upload_bytes,
            max_source_edge_px=settings.max_source_edge_px,
            max_frames=settings.max_frames,
            max_animation_pixels=settings.max_animation_pixels,
            # The other half of a child's address space is for libraries and fragmentation.
            max_decoding_bytes=min(settings.max_decoding_bytes, settings.child_memory_bytes // 2),
            max_jpeg_scans=settings.max_jpeg_scans,
            variants=tuple(VariantSize(*variant) for variant in settings.variants),
        )

    def wanting(self, variants: Iterable[Sequence[Any]]) -> Limits:
        """The same bounds with these variants, `(name, longest edge)` each, instead of the operator's."""
        return replace(self, variants=tuple(VariantSize(name, edge_px) for name, edge_px in variants))

    def is_in_band(self, size: tuple[int, int]) -> bool:
        """Whether a picture of `size` pixels is small enough, and large enough to be taken as it is."""
        return self.least_edge_share * self.max_edge_px <= max(size) <= self.max_edge_px

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

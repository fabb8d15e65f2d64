"""Limits of a picture: the largest accepted file, and the largest result.

`Limits` is plain, frozen and picklable: it travels to the processes of the pool. No decoder is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dream.variants import VariantSpec

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["KeptFacts", "Limits", "OutputFormat"]

#: The format of processed pictures. `auto`: JPEG, or WebP for a transparent or animated
#: picture, or a drawing that fits losslessly.
OutputFormat = Literal["auto", "jpeg", "webp", "avif"]
#: The facts about the photo to keep.
KeptFacts = Literal["none", "taken_at", "all"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one picture.

    Parameters:
      max_bytes: byte budget of the processed picture; it is never exceeded.
      max_edge_px: longest edge of the processed picture.
      least_edge_share: a longest edge of at least this share of `max_edge_px` is accepted if it saves work, as at the
        scales of a JPEG's decoder; 1 means exactly `max_edge_px`.
      output_format: the format of the processed picture.
      highest_quality: the highest quality, 1 to 100, always with loss; None means that of the format's own range.
      keeps_hdr: whether a JPEG keeps the gain map of its file.
      max_jpeg_pixels: most pixels of an uploaded JPEG. It is decoded at a reduced scale, so it may be larger
        than other pictures.
      max_pixels: most pixels of a picture in any other format.
      max_source_bytes: largest uploaded file.
      max_source_edge_px: longest edge of an uploaded picture. 65,535 is the largest that JPEG can express.
      max_frames: most frames of an animation.
      max_animation_pixels: most pixels of an uploaded animation, all frames together.
      max_decoding_bytes: the most memory that decoding a picture may take, estimated from its header.
      variants: the variants to make, each in at most `max_bytes`.
      focus: the point that cropped variants keep, as shares of the upright picture's sides; None lets it be found.
      only: the one variant to make in place of the picture.
      max_jpeg_scans: most scans of a progressive JPEG. Encoders write about ten, the most thorough optimisers a few
        dozen; each scan is a pass over the whole picture, so a small file with thousands of them takes minutes.
      max_parts: most segments of a JPEG, chunks of a PNG, frames and extensions of a GIF, without
        parts that have pixels.
      keep_facts: the facts about the photo that `Processed` has.
      keep_copyright: creator, copyright notice and licence are written into the result.
    """

    max_bytes: int = 2**20
    max_edge_px: int = 2560
    least_edge_share: float = 0.75
    output_format: OutputFormat = "auto"
    highest_quality: int | None = None
    keeps_hdr: bool = True
    max_jpeg_pixels: int = 100_000_000
    max_pixels: int = 40_000_000
    max_source_bytes: int = 32 * 2**20
    max_source_edge_px: int = 65_535
    max_jpeg_scans: int = 100
    max_parts: int = 10_000
    max_frames: int = 300
    max_animation_pixels: int = 200_000_000
    max_decoding_bytes: int = 640 * 2**20
    variants: tuple[VariantSpec, ...] = ()
    focus: tuple[float, float] | None = None
    keep_facts: KeptFacts = "none"
    keep_copyright: bool = False
    only: VariantSpec | None = None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of the settings."""
        return cls(
            max_bytes=settings.max_image_bytes,
            max_edge_px=settings.max_edge_px,
            output_format=settings.output_format,
            keeps_hdr=settings.hdr == "keep",
            max_jpeg_pixels=settings.max_jpeg_pixels,
            max_pixels=settings.max_pixels,
            max_source_bytes=settings.max_upload_bytes,
            max_source_edge_px=settings.max_source_edge_px,
            max_frames=settings.max_frames,
            max_animation_pixels=settings.max_animation_pixels,
            # The other half of a child's address space is for libraries and fragmentation.
            max_decoding_bytes=min(settings.max_decoding_bytes, settings.child_memory_bytes // 2),
            max_jpeg_scans=settings.max_jpeg_scans,
            keep_facts=settings.keep_facts,
            keep_copyright=settings.keep_copyright,
            variants=settings.upload_variants,
        )

    def wanting(self, variants: Iterable[VariantSpec]) -> Limits:
        """The same bounds with these variants instead of the operator's."""
        return replace(self, variants=tuple(variants))

    def around(self, focus: Sequence[float] | None) -> Limits:
        """The same bounds with the given focal point of a picture, `[x, y]` as its row has it."""
        return replace(self, focus=None if focus is None else (focus[0], focus[1]))

    def making(self, spec: VariantSpec, edge_px: int, focus: Sequence[float] | None) -> Limits:
        """The same bounds for a run that makes only this variant of a stored picture.

        Parameters:
          edge_px: the longest edge of the stored picture; no variant is larger.
        """
        return replace(self.wanting(()).around(focus), only=spec, max_edge_px=edge_px)

    def of_variant(self, spec: VariantSpec, edge_px: int) -> Limits:
        """The bounds of one variant with this longest edge."""
        return replace(
            self,
            max_edge_px=edge_px,
            output_format=spec.format or self.output_format,
            highest_quality=spec.quality or self.highest_quality,
        )

    def is_in_band(self, size: tuple[int, int]) -> bool:
        """Whether a picture of `size` pixels needs no reduction, and is large enough."""
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

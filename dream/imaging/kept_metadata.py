"""The metadata that the settings keep of a file: facts for the picture's row, and the credit for the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL.ImageFile import ImageFile

from dream.imaging.copyright import LEAST_CREDITED_PX, Credit, credit_of, write_credit
from dream.imaging.facts import facts_of
from dream.imaging.limits import Limits
from dream.imaging.metadata import Metadata
from dream.imaging.processed import Processed, Variant, variant_path

__all__ = ["KeptMetadata"]

#: The highest share of the byte budget for a credit; a longer one is left out.
_MOST_SHARE = 1 / 16


class KeptMetadata:
    """The kept metadata of one file.

    Parameters:
      image: opened, and not decoded yet.
      limits: the limits of the picture.
    """

    def __init__(self, image: ImageFile, limits: Limits) -> None:
        self._limits = limits
        self._is_wanted = limits.keep_facts != "none" or limits.keep_copyright
        self._metadata = Metadata.of(image) if self._is_wanted else Metadata()
        self._info = image.info
        self._credit = Credit()

    def limits(self) -> Limits:
        """The limits with room for the credit. Decoding may find more metadata, behind the pixels of a PNG."""
        limits = self._limits
        if self._is_wanted:
            self._metadata.add(self._info)
        credit = credit_of(self._metadata) if limits.keep_copyright else Credit()
        if not credit or credit.most_bytes > _MOST_SHARE * limits.max_bytes:
            return limits
        self._credit = credit
        return replace(limits, max_bytes=limits.max_bytes - credit.most_bytes)

    def finish(self, processed: Processed, target: Path) -> Processed:
        """Write the credit into the files, and add the facts to the description."""
        facts = facts_of(self._metadata, self._limits.keep_facts)
        if not self._credit:
            return replace(processed, facts=facts)
        return replace(
            processed,
            facts=facts,
            size_bytes=write_credit(target, processed.content_type, self._credit),
            variants=tuple(self._with_credit(each, target) for each in processed.variants),
        )

    def finish_alone(self, processed: Processed, target: Path) -> Processed:
        """Write the credit into a variant that was made alone, if it is large enough."""
        is_large = max(processed.width_px, processed.height_px) >= LEAST_CREDITED_PX
        return self.finish(processed, target) if is_large else processed

    def _with_credit(self, variant: Variant, target: Path) -> Variant:
        if max(variant.width_px, variant.height_px) < LEAST_CREDITED_PX:
            return variant
        path = variant_path(target, variant.name)
        return replace(variant, size_bytes=write_credit(path, variant.content_type, self._credit))

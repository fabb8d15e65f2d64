"""A file's metadata as its format stores it: Exif, XMP and IPTC, which `facts.py` and `copyright.py` read.

| file | Exif | XMP | IPTC |
| --- | --- | --- | --- |
| JPEG | APP1 | APP1 | APP13, resource 0x0404 |
| PNG | eXIf | iTXt | |
| WebP, AVIF, HEIC | a chunk, an item | a chunk, an item | |
| TIFF | its own directories | tag 700 | tag 33723 |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL.ImageFile import ImageFile

from dream.imaging.exif import Directory, directory_at, first_directory
from dream.imaging.mapped import mapped
from dream.imaging.tiff import TiffFile
from dream.imaging.xmp import MOST_BYTES, properties

__all__ = ["Metadata", "cleaned_text"]

_XMP_TAG, _IPTC_TAG = 700, 33723
_IPTC_RESOURCE = 0x0404
_MOST_IPTC_BYTES = 2**18
#: Invisible characters that scripts need: the two joiners.
_JOINERS = frozenset("\u200c\u200d")


@dataclass
class Metadata:
    """The metadata of a file, as far as it is read.

    Parameters:
      exif: the first directory.
      xmp, iptc: the packet, and the data sets of IPTC's older standard (IIM).
    """

    exif: Directory = field(default_factory=Directory)
    xmp: bytes = b""
    iptc: bytes = b""

    @classmethod
    def of(cls, image: ImageFile) -> Metadata:
        """The metadata of an opened picture."""
        metadata = cls()
        if isinstance(image, TiffFile):
            metadata._read_tiff(image)
        else:
            metadata.add(image.info)
        return metadata

    def add(self, info: Mapping[Any, Any]) -> None:
        """Add the metadata in a picture's `info` that is not there yet."""
        exif, xmp, photoshop = (info.get(name) for name in ("exif", "xmp", "photoshop"))
        if isinstance(exif, bytes) and not self.exif:
            self.exif = first_directory(exif)
        if isinstance(xmp, bytes) and not self.xmp:
            self.xmp = xmp
        iptc = photoshop.get(_IPTC_RESOURCE) if isinstance(photoshop, dict) else None
        if isinstance(iptc, bytes):
            self.iptc = iptc[:_MOST_IPTC_BYTES]

    def properties(self, wanted: Collection[str]) -> dict[str, list[str]]:
        """The wanted properties of XMP; none if it is broken."""
        try:
            return properties(self.xmp, wanted) if self.xmp else {}
        except ValueError:
            return {}

    def _read_tiff(self, image: TiffFile) -> None:
        if image.fp is None:
            return
        place, data = image.fp.tell(), mapped(image.fp)
        image.fp.seek(place)
        self.exif = directory_at(data, image.directory_at) if image.directory_at else first_directory(data)
        self.xmp = self.exif.raw(_XMP_TAG, MOST_BYTES)
        self.iptc = self.exif.raw(_IPTC_TAG, _MOST_IPTC_BYTES)


def cleaned_text(text: str, most_characters: int) -> str:
    """The text in one line without characters that are not shown; "" if it is longer than that."""
    shown = "".join(each if each.isprintable() or each in _JOINERS else " " for each in text[: 4 * most_characters])
    line = " ".join(shown.split())
    return line if len(line) <= most_characters and len(text) <= 4 * most_characters else ""

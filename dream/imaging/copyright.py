"""Creator, copyright notice and licence of a picture: read from its file, and written into the processed one.

```
XMP, else IPTC, else Exif ─► Credit ─► XMP, and in a JPEG Exif too
```

(Sources: ISO 16684-1; IPTC Photo Metadata 2023.2; IPTC-NAA IIM 4.2; Exif 3.0.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from PIL import Image
from PIL.ExifTags import Base as ExifTag

from dream.imaging.embed import MOST_AROUND_BYTES, embed
from dream.imaging.exif import decoded
from dream.imaging.metadata import Metadata, cleaned_text
from dream.imaging.xmp import NAMESPACES, packet

__all__ = ["LEAST_CREDITED_PX", "Credit", "credit_of", "write_credit"]

#: Variants with a shorter longest edge carry no credit.
LEAST_CREDITED_PX = 320

_LONGEST_NAME, _LONGEST_NOTICE, _LONGEST_URL, _MOST_CREATORS = 128, 1_000, 500, 10
_LICENSOR = "plus:Licensor/plus:LicensorURL"
_WANTED = frozenset({"dc:creator", "dc:rights", "xmpRights:WebStatement", "cc:license", _LICENSOR})
_URL = re.compile(r"https?://[!-~]+", re.ASCII)
#: Data sets of IPTC: coded character set, by-line, copyright notice (IIM 4.2, 1:90, 2:80, 2:116).
_DATA_SET = 0x1C
_BY_LINE, _COPYRIGHT_NOTICE = (2, 80), (2, 116)
#: Data sets above this length have another form, and are not read.
_LONGEST_DATA_SET = 0x7FFF


@dataclass(frozen=True)
class Credit:
    """The statements about the rights in a picture; "" and () stand for those that the file lacks.

    Parameters:
      creators: names.
      notice: the copyright notice.
      web_statement: the URL of a page about the rights.
      licence: the URL of the licence, as Creative Commons names it.
      licensor: the URL of a page at which to get a licence.
    """

    creators: tuple[str, ...] = ()
    notice: str = ""
    web_statement: str = ""
    licence: str = ""
    licensor: str = ""

    def __bool__(self) -> bool:
        return self != Credit()

    @property
    def description(self) -> str:
        """The element of XMP."""
        names = "".join(f"<rdf:li>{escape(name)}</rdf:li>" for name in self.creators)
        elements = {
            "dc:creator": names and f"<rdf:Seq>{names}</rdf:Seq>",
            "dc:rights": self.notice
            and f'<rdf:Alt><rdf:li xml:lang="x-default">{escape(self.notice)}</rdf:li></rdf:Alt>',
            "xmpRights:WebStatement": escape(self.web_statement),
            "plus:Licensor": self.licensor
            and '<rdf:Seq><rdf:li rdf:parseType="Resource">'
            f"<plus:LicensorURL>{escape(self.licensor)}</plus:LicensorURL></rdf:li></rdf:Seq>",
        }
        written = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items() if value)
        if self.licence:
            written += f"<cc:license rdf:resource={quoteattr(self.licence)}/>"
        used = [prefix for prefix in ("dc", "xmpRights", "plus", "cc") if f"<{prefix}:" in written]
        named = "".join(f' xmlns:{prefix}="{NAMESPACES[prefix]}"' for prefix in used)
        return f'<rdf:Description rdf:about=""{named}>{written}</rdf:Description>'

    @property
    def exif(self) -> bytes:
        """Exif with Artist and Copyright, if they are in ASCII, as Exif wants them; empty if neither is."""
        artist, exif = "; ".join(self.creators), Image.Exif()
        for tag, text in ((ExifTag.Artist, artist), (ExifTag.Copyright, self.notice)):
            if text and text.isascii():
                exif[tag] = text
        return exif.tobytes() if len(exif) else b""

    @property
    def most_bytes(self) -> int:
        """The bytes by which a file grows at most."""
        return len(packet([self.description])) + len(self.exif) + MOST_AROUND_BYTES


def credit_of(metadata: Metadata) -> Credit:
    """The statements of a file: from XMP, else from IPTC, else from Exif, which may name the camera's owner."""
    said = metadata.properties(_WANTED)
    iptc = list(_data_sets(metadata.iptc))
    return Credit(
        creators=_names(said.get("dc:creator", ()))
        or _names(text for number, text in iptc if number == _BY_LINE)
        or _names(metadata.exif.text(ExifTag.Artist).split(";")),
        notice=_first(said.get("dc:rights", ()))
        or _first(text for number, text in iptc if number == _COPYRIGHT_NOTICE)
        or _first([_exif_notice(metadata)]),
        web_statement=_url(said.get("xmpRights:WebStatement", ())),
        licence=_url(said.get("cc:license", ())),
        licensor=_url(said.get(_LICENSOR, ())),
    )


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    names = (cleaned_text(text, _LONGEST_NAME) for text in islice(texts, _MOST_CREATORS))
    return tuple(dict.fromkeys(name for name in names if name))


def _first(texts: Iterable[str]) -> str:
    return next((clean for text in texts if (clean := cleaned_text(text, _LONGEST_NOTICE))), "")


def _url(texts: Iterable[str]) -> str:
    return next((text for text in texts if len(text) <= _LONGEST_URL and _URL.fullmatch(text)), "")


def _exif_notice(metadata: Metadata) -> str:
    """The notices of photographer and editor, with a zero between them; a space stands for a missing one."""
    parts = metadata.exif.raw(ExifTag.Copyright).split(b"\0")[:2]
    return "; ".join(text for part in parts if (text := decoded(part).strip()))


def _data_sets(iptc: bytes) -> Iterator[tuple[tuple[int, int], str]]:
    """The data sets of IIM with texts, by record and number."""
    at = 0
    while at + 5 <= len(iptc) and iptc[at] == _DATA_SET:
        length = int.from_bytes(iptc[at + 3 : at + 5], "big")
        if length > _LONGEST_DATA_SET:
            return
        yield (iptc[at + 1], iptc[at + 2]), decoded(iptc[at + 5 : at + 5 + length])
        at += 5 + length


def write_credit(path: Path, content_type: str, credit: Credit) -> int:
    """Write the credit into a processed picture; returns the size of the file."""
    return embed(path, content_type, credit.description, credit.exif)

"""Read single properties of XMP, the XML about a picture that its file may carry, and write packets.

A packet comes from an uploaded file. The reader refuses document types, and with them entities: nothing expands or is
fetched.

```
x:xmpmeta ─► rdf:RDF ─► rdf:Description ─┬► property="text"
                                         └► property ─► text │ rdf:Alt, Bag, Seq ─► rdf:li ─► text │ fields
```

(Source: ISO 16684-1:2019, clause 7.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from xml.parsers import expat

__all__ = ["MOST_BYTES", "NAMESPACES", "SIGNATURE", "packet", "properties"]

#: The bytes that begin an APP1 segment of XMP in a JPEG (source: ISO 16684-3).
SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
#: Namespaces by their usual prefixes.
NAMESPACES = {
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "apdi": "http://ns.apple.com/pixeldatainfo/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "cc": "http://creativecommons.org/ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "x": "adobe:ns:meta/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}
_PREFIXES = {uri: prefix for prefix, uri in NAMESPACES.items()}
#: Larger packets, with edits and masks in them, are not read.
MOST_BYTES = 2**20
#: The most elements and values to read, the longest value, and the greatest depth.
_MOST_ELEMENTS, _MOST_VALUES, _LONGEST_VALUE, _DEEPEST = 50_000, 100, 4_096, 20
_LISTS = frozenset({"rdf:Alt", "rdf:Bag", "rdf:Seq"})
#: The places of descriptions of the picture; others are of pictures that it was made from.
_DESCRIPTIONS = (["x:xmpmeta", "rdf:RDF", "rdf:Description"], ["rdf:RDF", "rdf:Description"])


class _Reader:
    """Collects the wanted properties of a packet while it is parsed."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.found: dict[str, list[str]] = {}
        self._wanted = wanted
        self._path: list[str] = []
        self._text = ""
        self._elements = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if self._elements > _MOST_ELEMENTS or len(self._path) > _DEEPEST:
            raise ValueError("XMP has too many elements")
        self._path.append(_short(name))
        self._text = ""
        its = self._property()
        for each, value in attributes.items():
            attribute = _short(each)
            if its is None:
                self._add(attribute if self._path in _DESCRIPTIONS else "", value)
            else:
                self._add(its if attribute == "rdf:resource" else f"{its}/{attribute}", value)

    def text(self, text: str) -> None:
        if len(self._text) <= _LONGEST_VALUE:
            self._text += text

    def end(self, _name: str) -> None:
        its, last = self._property(), self._path.pop()
        if its is not None and last not in _LISTS:
            # A field of a structure has a name of its own.
            self._add(its if last in {its, "rdf:li"} else f"{its}/{last}", self._text)
        self._text = ""

    def refuse(self, *_: object) -> None:
        raise ValueError("XMP must have no document type")

    def _property(self) -> str | None:
        """The property that the element is, or is a part of."""
        for path in _DESCRIPTIONS:
            if self._path[: len(path)] == path and len(self._path) > len(path):
                return self._path[len(path)]
        return None

    def _add(self, name: str, value: str) -> None:
        if name in self._wanted and value.strip() and len(value) <= _LONGEST_VALUE:
            values = self.found.setdefault(name, [])
            if len(values) < _MOST_VALUES:
                values.append(value.strip())


def properties(data: bytes, wanted: Collection[str]) -> dict[str, list[str]]:
    """The values of the wanted properties of a packet; missing ones are left out.

    Parameters:
      wanted: names with the prefixes of `NAMESPACES`, as `dc:creator`; `plus:Licensor/plus:LicensorURL` is a field of
        a structure.

    Raises:
      ValueError: it is no well-formed XML, has a document type, or is too large.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"XMP may have at most {MOST_BYTES} bytes")
    reader = _Reader(wanted)
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(data.strip(b"\0 \t\r\n"), True)
    except expat.ExpatError as error:
        raise ValueError(f"XMP is no well-formed XML: {error}") from error
    return reader.found


def packet(descriptions: Iterable[str]) -> bytes:
    """A packet of these `rdf:Description` elements."""
    head = f'<x:xmpmeta xmlns:x="{NAMESPACES["x"]}"><rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}">'
    return f"{head}{''.join(descriptions)}</rdf:RDF></x:xmpmeta>".encode()


def _short(name: str) -> str:
    """The name with its usual prefix."""
    uri, _, local = name.rpartition(" ")
    return f"{_PREFIXES.get(uri, uri)}:{local}"

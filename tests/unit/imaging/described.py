"""Files that say who took them, when, where and with what: written by Pillow and pillow-heif."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo
from pillow_heif import from_pillow

__all__ = ["KINDS", "file_of", "photo_exif", "xmp_of"]

#: Every format that can say it.
KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIC", "TIFF")

_NAMESPACES = {
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "cc": "http://creativecommons.org/ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}


def photo_exif(**changed: Any) -> Image.Exif:
    """Exif as a telephone writes it.

    Parameters:
      changed: values of tags by their names in `Base` or `GPS`; None leaves one out.
    """
    exif = Image.Exif()
    values: dict[str, Any] = {
        "Make": "Dreamer",
        "Model": "D1",
        "DateTimeOriginal": "2024:05:06 07:08:09",
        "OffsetTimeOriginal": "+02:00",
        "SubsecTimeOriginal": "12",
        "LensModel": "Glass 4.2mm f/1.6",
        "FocalLength": 4.2,
        "ExposureTime": 0.008,
        "FNumber": 1.6,
        "ISOSpeedRatings": 64,
        "GPSLatitudeRef": "S",
        "GPSLatitude": (33.0, 51.0, 24.84),
        "GPSLongitudeRef": "E",
        "GPSLongitude": (151.0, 12.0, 54.36),
        "GPSAltitudeRef": b"\1",
        "GPSAltitude": 3.5,
    }
    for name, value in {**values, **changed}.items():
        if value is None:
            continue
        if name.startswith("GPS"):
            exif.get_ifd(IFD.GPSInfo)[GPS[name]] = value
        elif name in {"Make", "Model", "Artist", "Copyright", "Orientation", "DateTime"}:
            exif[Base[name]] = value
        else:
            exif.get_ifd(IFD.Exif)[Base[name]] = value
    return exif


def xmp_of(elements: str = "", attributes: str = "", before: str = "") -> bytes:
    """A packet with these elements and attributes of its description."""
    named = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items())
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {named} {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def file_of(picture: Image.Image, kind: str, exif: Image.Exif | None = None, xmp: bytes = b"") -> bytes:
    """The picture as a file with this metadata."""
    out, said = io.BytesIO(), {"exif": exif.tobytes()} if exif else {}
    if kind == "HEIC":
        from_pillow(picture).save(out, quality=80, xmp=xmp or None, **said)
    elif kind == "PNG":
        texts = PngInfo()
        if xmp:
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        picture.save(out, "PNG", pnginfo=texts, **said)
    elif kind == "TIFF":
        directories = Image.Exif()
        directories.load(exif.tobytes() if exif else b"")
        if xmp:
            directories[700] = xmp
        picture.save(out, "TIFF", exif=directories.tobytes())
    else:
        picture.save(out, kind, xmp=xmp, **said)
    return out.getvalue()

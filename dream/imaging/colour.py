"""Convert a picture's colours to sRGB, the colour space that every browser assumes for a picture without a profile.

LittleCMS converts profiles, except those of PQ and HLG, which it cannot tone-map. `colour_space` converts these, and
spaces that are named by numbers. (Source for profiles: ICC.1:2022, clauses 7 to 10.)
"""

from __future__ import annotations

import io
import struct

from PIL import Image, ImageChops, ImageCms

from dream.imaging.colour_space import Chromaticities, ColourSpace, by_code_points, convert

__all__ = ["Colours", "is_srgb", "to_srgb"]

#: A file's statements about its colours, the strongest first: ICC profiles and spaces named by numbers.
Colours = tuple[bytes | ColourSpace, ...]

_CANNOT_CONVERT = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
#: The names of colour spaces in profiles, and the mode of the pictures that each describes.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
#: Levels by which a colour may differ and still count as equal: profiles of sRGB differ by their rounding.
_SAME_LEVELS = 2
#: Light at some levels of PQ (as a share of 10,000 cd/m²) and of HLG (of the scene's), by ITU-R BT.2100.
_SHAPES = {
    "pq": {0.25: 0.000515, 0.5: 0.009225, 0.75: 0.098337, 0.9: 0.385, 1.0: 1.0},
    "hlg": {0.25: 0.020833, 0.5: 0.083333, 0.75: 0.264962, 0.9: 0.585, 1.0: 1.0},
}
#: The number of entries from which a curve has a recognisable shape.
_LEAST_ENTRIES = 64
_D65 = (0.3127, 0.3290)
#: Bradford's adaptation (Lindbloom).
_D50_TO_D65 = (
    (0.9555766, -0.0230393, 0.0631636),
    (-0.0282895, 1.0099416, 0.0210077),
    (0.0122982, -0.0204830, 1.3299098),
)


def is_srgb(mode: str, profile: bytes | None) -> bool:
    """Whether the numbers of a picture mean sRGB, or grey levels of it, as they are.

    Parameters:
      mode: the picture's.
      profile: its ICC profile, if it has one; a broken one is ignored.
    """
    return mode == "RGB" and _means_srgb(profile) if profile else mode in {"L", "RGB"}


def to_srgb(image: Image.Image, colours: Colours) -> Image.Image:
    """The picture in sRGB, in mode L, RGB or RGBA.

    A profile that is broken, or is for another kind of picture, is ignored.

    Parameters:
      image: in mode L, LA, RGB, RGBA, CMYK or LAB.
      colours: the file's statements about its colours; the first usable one is followed.
    """
    if image.mode in {"LA", "RGBA"}:
        alpha = image.getchannel("A")
        image = to_srgb(image.convert(image.mode[:-1]), colours).convert("RGB")
        image.putalpha(alpha)
        return image
    for said in colours:
        converted = _followed(image, said)
        if converted is not None:
            return converted
    if image.mode == "LAB":
        return _convert(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _followed(image: Image.Image, said: bytes | ColourSpace) -> Image.Image | None:
    """The picture in sRGB; None if this statement is not usable."""
    if isinstance(said, bytes):
        if image.mode == "RGB" and _means_srgb(said):
            return image
        space = _hdr_space(said)
        if space is None:
            return _by_profile(image, said)
        said = space
    return convert(image, said) if image.mode in {"L", "RGB"} else None


def _means_srgb(profile: bytes) -> bool:
    """Whether a profile of RGB pictures means sRGB, tried on a grid of colours."""
    levels = bytes(range(0, 256, 51))
    grid = bytes(level for red in levels for green in levels for blue in levels for level in (red, green, blue))
    colours = Image.frombytes("RGB", (len(levels) ** 3, 1), grid)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = _convert(colours, source)
    except _CANNOT_CONVERT:
        return False
    return max(high for _, high in ImageChops.difference(colours, converted).getextrema()) <= _SAME_LEVELS  # type: ignore[misc]


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip())
        if mode == image.mode:
            converted = _convert(image, source)
        elif mode == "RGB" and image.mode == "L":  # a grey picture with the profile of its camera
            converted = _convert(image.convert("RGB"), source)
        else:
            return None
    except _CANNOT_CONVERT:
        return None
    return converted.convert("L") if image.mode == "L" else converted


def _convert(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("the colours were not converted")
    return converted


def _hdr_space(profile: bytes) -> ColourSpace | None:
    """The space of a profile that is PQ or HLG by its cicp tag, or by the shape of its curve; None for any other."""
    try:
        tags = _tags(profile)
        if len(tags.get(b"cicp", b"")) >= 12:
            space = by_code_points(tags[b"cicp"][8], tags[b"cicp"][9])
            return space if space is not None and space.is_hdr else None
        transfer = _hdr_transfer(tags.get(b"rTRC", b""))
        if transfer is None:
            return None
        return ColourSpace(_primaries(tags), transfer)
    except (struct.error, KeyError, ZeroDivisionError, IndexError):
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The tags of a profile, by their signatures."""
    (count,) = struct.unpack_from(">L", profile, 128)
    entries = struct.iter_unpack(">4sLL", profile[132 : 132 + 12 * min(count, 100)])
    return {name: profile[start : start + size] for name, start, size in entries}


def _hdr_transfer(curve: bytes) -> str | None:
    """The name of a curve that is PQ or HLG, by its values at some levels; None if it is neither."""
    if curve[:4] != b"curv" or len(curve) < 12:
        return None
    (count,) = struct.unpack_from(">L", curve, 8)
    if count < _LEAST_ENTRIES:
        return None
    table = struct.unpack_from(f">{count}H", curve, 12)
    for transfer, shape in _SHAPES.items():
        seen = ((table[round(level * (count - 1))] / 65_535, light) for level, light in shape.items())
        if all(abs(found - light) <= 0.04 * light + 0.0002 for found, light in seen):
            return transfer
    return None


def _primaries(tags: dict[bytes, bytes]) -> Chromaticities:
    """The primaries of a matrix profile, adapted from its D50 to D65."""
    columns = [struct.unpack_from(">3l", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    at = [_D65]
    for column in columns:
        x, y, z = (sum(factor * value for factor, value in zip(row, column, strict=True)) for row in _D50_TO_D65)
        at.append((x / (x + y + z), y / (x + y + z)))
    return Chromaticities(*(value for place in at for value in place))

"""Colours: whatever a picture's numbers mean becomes sRGB, which is what an untagged picture means to every browser."""

from __future__ import annotations

import io

from PIL import Image, ImageChops, ImageCms

__all__ = ["is_srgb", "to_srgb"]

_CANNOT_CONVERT = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
#: What a profile calls its colour space, and the mode of pictures it can speak about.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
#: Levels by which a colour may change without being another: profiles of sRGB differ by their rounding.
_SAME_LEVELS = 2


def is_srgb(mode: str, profile: bytes | None) -> bool:
    """Whether the numbers of a picture mean sRGB, or grey levels of it, as they are.

    Parameters:
      mode: the picture's.
      profile: its ICC profile, where it has one; one that is broken means nothing.
    """
    return mode == "RGB" and _means_srgb(profile) if profile else mode in {"L", "RGB"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB, in mode L, RGB or RGBA.

    A profile that is broken, or that speaks about another kind of picture, is ignored.

    Parameters:
      image: in mode L, LA, RGB, RGBA, CMYK or LAB.
      profile: its ICC profile, where it has one.
    """
    if image.mode in {"LA", "RGBA"}:
        alpha = image.getchannel("A")
        image = to_srgb(image.convert(image.mode[:-1]), profile).convert("RGB")
        image.putalpha(alpha)
        return image
    if is_srgb(image.mode, profile):
        return image
    converted = _by_profile(image, profile) if profile else None
    if converted is not None:
        return converted
    if image.mode == "LAB":
        return _convert(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _means_srgb(profile: bytes) -> bool:
    """Whether a profile of RGB pictures does, tried on a grid of colours."""
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

"""Decode an uploaded file into pixels.

The header's facts (format, pixels, edges, scans, parts) are checked before a pixel is decoded. The pool limits time and
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.errors import ImageRejected, Reason
from dream.imaging import turbo
from dream.imaging.avif import AvifFile
from dream.imaging.colour import Colours
from dream.imaging.colour_space import ColourSpace, by_code_points
from dream.imaging.damage import RAISED_BY_DECODERS, rejecting_damage
from dream.imaging.formats import ACCEPTED, HEAD_BYTES, opener_for
from dream.imaging.frames import Frame, composed
from dream.imaging.gif import GifFile
from dream.imaging.limits import Limits
from dream.imaging.png import PngFile
from dream.imaging.structure import check_memory, check_structure, pixel_bytes
from dream.messages.arguments import refusal_of

__all__ = ["Decoded", "colours_of", "decode", "frames_of", "open_image", "orientation_of", "upright_size"]

#: The scales of a JPEG's decoder in eighths, the quick ones first: for results that need no further reduction, and for
#: others. 5/8 and 7/8 are missing: a quick scale and a reduction take less time.
_FOR_BAND = (8, 1, 2, 4, 3, 6)
_TO_REDUCE = (1, 2, 4, 8)
#: From this orientation on, a picture's width becomes its height.
_FIRST_ON_ITS_SIDE = 5


@dataclass(frozen=True)
class Decoded:
    """A picture as its file stores it.

    Parameters:
      image: the pixels, not yet turned, in the mode and colours of the file; a JPEG's may be at a reduced scale.
      fitted_px: the size to reduce `image` to, in the same orientation.
      orientation: how to turn it: 1–8 (source: Exif 2.32, tag 274).
      colours: the file's statements about its colours.
    """

    image: Image.Image
    fitted_px: tuple[int, int]
    orientation: int
    colours: Colours


def open_image(file: BinaryIO, limits: Limits) -> ImageFile:
    """Read a picture's header and check it against the limits; decode no pixel yet.

    Raises:
      ImageRejected: the file is no picture, of no accepted format, damaged, or beyond a limit.
      OSError: the file could not be read.
    """
    size_bytes = file.seek(0, 2)
    file.seek(0)
    refusal = refusal_of("", size_bytes, limits.max_source_bytes)
    if refusal is not None:
        raise refusal
    opener = opener_for(file.read(HEAD_BYTES))
    if opener is None:
        raise ImageRejected.because(Reason.NOT_AN_IMAGE, accepted=ACCEPTED)
    check_structure(file, limits)
    file.seek(0)
    with rejecting_damage():
        image = opener(file)
    most_pixels = limits.max_jpeg_pixels if isinstance(image, JpegImageFile) else limits.max_pixels
    for size in (image.size, *(frame.size for frame in frames_of(image))):
        _check_size(size, most_pixels, limits)
    check_memory(pixel_bytes(image), limits)
    return image


def decode(image: ImageFile, limits: Limits) -> Decoded:
    """Decode the pixels of an opened picture, or the first frame of an animation.

    A JPEG is decoded at the smallest scale, in eighths, that still covers the size it will be reduced to. A scale whose
    result is within the limits and not far below them (`Limits.is_in_band`) is not reduced any further. A common PNG
    comes in its fitted size.

    Raises:
      ImageRejected: it is damaged or incomplete.
      OSError: the file could not be read.
    """
    fitted_px = limits.fit(image.size)
    image.info.pop("xmp", None)  # Pillow would turn a TIFF by its XMP, which browsers ignore
    pixels: Image.Image = image
    with rejecting_damage():
        if isinstance(image, JpegImageFile):
            pixels, fitted_px = _decode_jpeg(image, fitted_px, limits)
        elif frames := frames_of(image):
            pixels = next(composed(image.size, frames[:1]))
        else:
            if isinstance(image, PngFile):
                image.reduce_to(fitted_px)
            image.load()
    # After `load`, because a PNG may have its Exif behind its pixels, and Pillow turns a TIFF.
    return Decoded(pixels, fitted_px, orientation_of(image), colours_of(image))


def frames_of(image: Image.Image) -> tuple[Frame, ...]:
    """The frames that dream composes; none if Pillow's pixels are the picture."""
    return image.frames if isinstance(image, GifFile | PngFile) else ()


def colours_of(image: Image.Image) -> Colours:
    """The file's statements about its colours. In HEIF a profile counts more than numbers (MIAF, 7.3.6.4)."""
    if isinstance(image, PngFile):
        return image.colours
    profile = image.info.get("icc_profile")
    space = image.colour_space if isinstance(image, AvifFile) else _space_of_heic(image)
    return tuple(said for said in (profile, space) if said)


def _space_of_heic(image: Image.Image) -> ColourSpace | None:
    numbers = image.info.get("nclx_profile")
    if not isinstance(numbers, dict):
        return None
    return by_code_points(numbers["color_primaries"], numbers["transfer_characteristics"])


def orientation_of(image: Image.Image) -> int:
    """The orientation in Exif, 1–8; 1 if Exif has none, or another value.

    Pillow has turned TIFFs already. Browsers ignore XMP, and Exif in a PNG's text.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        value = exif.get(ExifTag.Orientation, 1)
    except RAISED_BY_DECODERS:  # a good picture may have broken metadata
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The size of a picture in pixels after its turn."""
    width, height = image.size
    return (height, width) if orientation_of(image) >= _FIRST_ON_ITS_SIDE else (width, height)


def _decode_jpeg(
    image: JpegImageFile, fitted_px: tuple[int, int], limits: Limits
) -> tuple[Image.Image, tuple[int, int]]:
    """The pixels at the best scale, and the size to reduce them to."""
    usable = (each for each in _FOR_BAND if turbo.keeps_shape(image.size, each))
    within = (each for each in usable if limits.is_in_band(turbo.scaled(image.size, each)))
    covering = (each for each in _TO_REDUCE if max(turbo.scaled(image.size, each)) >= max(fitted_px))
    final = next(within, None)
    pixels = turbo.decode(image, final or next(covering, turbo.FULL), is_final=final is not None)
    if pixels is None:
        _draft(image, fitted_px, limits)
        image.load()
        pixels = image
    return pixels, pixels.size if limits.is_in_band(pixels.size) else fitted_px


def _draft(image: JpegImageFile, fitted_px: tuple[int, int], limits: Limits) -> None:
    """Choose the scale at which Pillow decodes."""
    for scale in (8, 4, 2, 1):
        if limits.is_in_band(turbo.scaled(image.size, turbo.FULL // scale)):
            # Rounded down, because `draft` needs a size that the scale covers.
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
            return
    image.draft(None, fitted_px)


def _check_size(size: tuple[int, int], most_pixels: int, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected.because(Reason.IMAGE_DAMAGED)
    if max(width, height) > limits.max_source_edge_px:
        raise ImageRejected.because(Reason.SIDE_TOO_LONG, width=width, height=height, most=limits.max_source_edge_px)
    if width * height > most_pixels:
        raise ImageRejected.because(
            Reason.TOO_MANY_PIXELS,
            megapixels=width * height / 1e6,
            width=width,
            height=height,
            most=most_pixels / 1e6,
        )

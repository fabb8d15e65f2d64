"""From a file to pixels: the only code that reads what a stranger has sent.

Everything that can be known from the header (format, pixels, edges, scans, parts) is checked before a pixel is decoded.
Limits on time and memory are the pool's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.arguments import size_text
from dream.errors import ImageRejected
from dream.imaging.avif import AvifFile
from dream.imaging.colour import Colours
from dream.imaging.colour_space import ColourSpace, by_code_points
from dream.imaging.damage import DAMAGED, RAISED_BY_DECODERS, rejecting_damage
from dream.imaging.formats import ACCEPTED, HEAD_BYTES, opener_for
from dream.imaging.frames import Frame, composed
from dream.imaging.gif import GifFile
from dream.imaging.limits import Limits
from dream.imaging.memory import check_memory, pixel_bytes
from dream.imaging.png import PngFile
from dream.imaging.structure import check_structure

__all__ = ["Decoded", "colours_of", "decode", "frames_of", "open_image", "orientation_of"]

#: The scales of a JPEG's decoder, 1/8 to 1.
_DCT_SCALES = (8, 4, 2, 1)


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
    """Read a picture's header and hold it against the limits; no pixel is decoded yet.

    Raises:
      ImageRejected: it is no picture, of no accepted format, damaged, or beyond a limit.
      OSError: the file could not be read.
    """
    size_bytes = file.seek(0, 2)
    file.seek(0)
    if not size_bytes:
        raise ImageRejected("the file is empty")
    if size_bytes > limits.max_source_bytes:
        raise ImageRejected(f"the file is larger than {size_text(limits.max_source_bytes)}")
    opener = opener_for(file.read(HEAD_BYTES))
    if opener is None:
        raise ImageRejected(f"the file is not a picture of an accepted format ({ACCEPTED})")
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
    """Decode the pixels of an opened picture; of an animation, its first frame.

    A JPEG is decoded at the smallest scale (1/8, 1/4, 1/2, 1) that still covers the size it will be reduced to. A scale
    whose result is within the limits and not far below them (`Limits.is_in_band`) is not reduced any further.

    Raises:
      ImageRejected: it is damaged or incomplete.
      OSError: the file could not be read.
    """
    fitted_px = limits.fit(image.size)
    image.info.pop("xmp", None)  # Pillow would turn a TIFF by its XMP, which browsers ignore
    pixels: Image.Image = image
    with rejecting_damage():
        if isinstance(image, JpegImageFile):
            fitted_px = _draft(image, fitted_px, limits)
        if frames := frames_of(image):
            pixels = next(composed(image.size, frames[:1]))
        else:
            image.load()
    # Asked for after `load`, since a PNG may have its Exif behind its pixels and a TIFF is turned by Pillow.
    return Decoded(pixels, fitted_px, orientation_of(image), colours_of(image))


def frames_of(image: Image.Image) -> tuple[Frame, ...]:
    """The frames that we compose ourselves; none where Pillow's pixels are the picture."""
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
    """The orientation that Exif gives, 1–8; 1 where it gives none, or another value.

    Pillow has turned TIFFs already. Browsers ignore XMP, and Exif in a PNG's text.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        value = exif.get(ExifTag.Orientation, 1)
    except RAISED_BY_DECODERS:  # broken metadata does not spoil a good picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _draft(image: JpegImageFile, fitted_px: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """Choose the scale to decode at; returns the size to reduce the result to."""
    width, height = image.size
    for scale in _DCT_SCALES:
        if limits.is_in_band((-(-width // scale), -(-height // scale))):
            # Rounded down, for `draft` wants a size that the scale covers.
            image.draft(None, (max(1, width // scale), max(1, height // scale)))
            return image.size if limits.is_in_band(image.size) else fitted_px
    image.draft(None, fitted_px)
    return fitted_px


def _check_size(size: tuple[int, int], most_pixels: int, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected(DAMAGED)
    if max(width, height) > limits.max_source_edge_px:
        raise ImageRejected(
            f"the picture is {width} × {height} pixels; neither side may have more than {limits.max_source_edge_px}"
        )
    if width * height > most_pixels:
        raise ImageRejected(
            f"the picture has {width * height / 1e6:.4g} million pixels ({width} × {height}); "
            f"at most {most_pixels / 1e6:.4g} million are accepted in this format"
        )

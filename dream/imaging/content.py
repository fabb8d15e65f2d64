"""Distinguish photos from drawings, because they need different encodings.

A photo has noise and soft colours: JPEG with the colours at half the scale shows it well. A screenshot, a chart or a
palette picture has flat areas and hard edges: coloured words turn grey in such a JPEG, and a lossless file is often
smaller. Trial encodings of a sample of tiles show which of the two it is, in some milliseconds.
"""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from dream.imaging.transform import lay_on_white

__all__ = ["PHOTO", "Content", "content_of", "content_of_pixels", "is_grey"]

#: Colours that count as few: as many as in a palette, or this many for each pixel of a sample. As measured, photos have
#: 0.1 to 0.6, words with soft edges 0.006 to 0.02. Every grey picture has few.
_FEW_COLOURS, _FEW_SHARE = 256, 0.03
_FEW_GREYS = 32
#: The sample: tiles across and down, and the edge of each.
_TILES = 6
_TILE_PX = 32
#: As measured on samples, with a JPEG's tables left out: without loss a photo takes 3.1 to 8 times the bytes of a JPEG
#: of quality 90, a drawing 0.1 to 2.2 times; a screenshot that is a quarter photo 1.3 times. In grey that is 2.1 to
#: 6.8 and 0.5 to 0.7 times, because there is less to lose.
_MOST_RATIO, _MOST_RATIO_IN_GREY = 2.3, 1.3
_JPEG_TABLES_BYTES = 600
#: Colours are greyed where half the scale changes Cb or Cr by more than this,
_GREYED_LEVELS = 32
#: in at least this share of a picture with an edge of 2560 pixels; smaller pictures have a larger share. Photos of that
#: size have none, words on one 0.05%.
_GREYED_SHARE = 0.0003
_GREYED_EDGE_PX = 2560
#: Two rows of each this many are compared.
_ROWS_STEP = 32


class Content(NamedTuple):
    """The kind of encoding that a picture needs.

    Parameters:
      is_drawn: a lossless file of it is probably small.
      is_sharp: its colours must not be kept at half the scale.
      lossless_bytes: the approximate size of the file without loss; 0 if it was not measured.
    """

    is_drawn: bool
    is_sharp: bool
    lossless_bytes: int


PHOTO = Content(is_drawn=False, is_sharp=False, lossless_bytes=0)


def content_of(image: Image.Image, source: ImageFile) -> Content:
    """Whether a picture is a photo or a drawing, by its pixels and the file it comes from.

    Parameters:
      image: in mode L, RGB or RGBA, as it will be encoded.
      source: its file, as it was opened. Colours that a JPEG has lost do not come back: a JPEG with its colours at half
        the scale counts as a photo, and none is worth keeping without loss.
    """
    if not isinstance(source, JpegImageFile):
        return content_of_pixels(image)
    if get_sampling(source) != 0:  # 4:4:4
        return PHOTO
    return PHOTO._replace(is_sharp=_is_sharp(image))


def content_of_pixels(image: Image.Image) -> Content:
    """Whether a picture in mode L, RGB or RGBA is a photo or a drawing, by its pixels."""
    sample = _sample(image)
    lossless_bytes = _size(sample, "WEBP", lossless=True, method=0, quality=0)
    lossy_bytes = _size(lay_on_white(sample), "JPEG", quality=90, subsampling="4:2:0")
    pixels = sample.width * sample.height
    most_ratio, few = _MOST_RATIO, max(_FEW_COLOURS, int(_FEW_SHARE * pixels))
    if is_grey(sample):
        most_ratio, few = _MOST_RATIO_IN_GREY, _FEW_GREYS
    is_small = lossless_bytes <= most_ratio * (lossy_bytes - _JPEG_TABLES_BYTES)
    is_drawn = is_small or sample.getcolors(few) is not None
    share = image.width * image.height / pixels
    return Content(is_drawn, is_drawn or _is_sharp(image), int(lossless_bytes * share))


def is_grey(image: Image.Image) -> bool:
    """Whether all colours of a picture are equal in each pixel."""
    bands = image.split()
    return len(bands) < 3 or all(ImageChops.difference(bands[0], other).getextrema() == (0, 0) for other in bands[1:3])


def _sample(image: Image.Image) -> Image.Image:
    """Tiles from all over the picture, side by side; a small picture as it is."""
    width, height = image.size
    across, down = (min(_TILES, max(1, side // _TILE_PX)) for side in image.size)
    tile_width, tile_height = min(width, _TILE_PX), min(height, _TILE_PX)
    if width * height <= (_TILES * _TILE_PX) ** 2:
        return image
    sample = Image.new(image.mode, (across * tile_width, down * tile_height))
    for column in range(across):
        for row in range(down):
            left = int((column + 0.5) * width / across - tile_width / 2)
            top = int((row + 0.5) * height / down - tile_height / 2)
            tile = image.crop((left, top, left + tile_width, top + tile_height))
            sample.paste(tile, (column * tile_width, row * tile_height))
    return sample


def _size(image: Image.Image, kind: str, **options: object) -> int:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return len(out.getvalue())


def _is_sharp(image: Image.Image) -> bool:
    """Whether some colours turn grey at half the scale."""
    if image.mode == "L" or min(image.size) < 2:
        return False
    rows = _rows(lay_on_white(image))
    greyed = 0
    for colours in rows.convert("YCbCr").split()[1:]:
        coarse = colours.reduce(2).resize(colours.size, Image.Resampling.NEAREST)
        greyed += sum(ImageChops.difference(colours, coarse).histogram()[_GREYED_LEVELS:])
    share = greyed / (2 * rows.width * rows.height)
    return share * max(image.size) > _GREYED_SHARE * _GREYED_EDGE_PX


def _rows(image: Image.Image) -> Image.Image:
    """Pairs of rows from all over the picture, as an encoder pairs them; a small picture as it is."""
    width, height = image.width // 2 * 2, image.height // 2 * 2
    pairs = height // _ROWS_STEP
    if pairs < _ROWS_STEP // 2:
        return image.crop((0, 0, width, height))
    rows = Image.new(image.mode, (width, 2 * pairs))
    for pair in range(pairs):
        # At varying places, because lines of words may be exactly as far apart.
        top = pair * _ROWS_STEP + pair * 10 % _ROWS_STEP
        rows.paste(image.crop((0, top, width, top + 2)), (0, 2 * pair))
    return rows

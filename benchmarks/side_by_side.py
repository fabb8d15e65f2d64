"""The documented algorithm's result beside dream's, as a picture to look at.

    python -m benchmarks.side_by_side TARGET [--photo FILE] [--max-bytes 1048576]

Without a photo of yours, the benchmark draws a scene: sky, hills and grain like a camera's, with lines and letters in
front, stored on its side with an orientation tag, like a phone's photo. The top shows both results as a whole, the
bottom the same section of each, enlarged.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ExifTags import Base

from benchmarks.opponents import documented
from dream.imaging import process_image
from dream.stack.samples import draw

__all__ = ["main"]

_WHOLE_PX, _GAP_PX, _LABEL_PX = 360, 12, 44
#: Size of the section, and its enlargement.
_PART_PX, _ENLARGED = 180, 2
#: Place of the section, as shares of the upright picture's width and height.
_PLACE = (0.5, 0.47)


def main() -> None:
    """Make the picture, and print size and bytes of both results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", type=Path, metavar="TARGET", help="the picture to write, a .jpg or .png")
    parser.add_argument("--photo", type=Path, metavar="FILE", help="a JPEG of yours")
    parser.add_argument("--max-bytes", type=int, default=2**20)
    options = parser.parse_args()
    data = options.photo.read_bytes() if options.photo else _scene()
    results = {
        "documented": documented(data, options.max_bytes),
        "dream": process_image(data, "photo", options.max_bytes),
    }
    columns = [_column(name, result, data) for name, result in results.items()]
    page = Image.new("RGB", (sum(column.width for column in columns) + _GAP_PX, columns[0].height), "white")
    for number, column in enumerate(columns):
        page.paste(column, (number * (column.width + _GAP_PX), 0))
    page.save(options.target, quality=85, subsampling="4:4:4")
    print(f"{len(data) / 2**20:.1f} MiB in; {options.target}: {page.width} × {page.height} pixels")


def _scene() -> bytes:
    """A drawn scene of 8 million pixels on its side, like a phone's photo."""
    with tempfile.TemporaryDirectory() as folder:
        stored = Image.open(draw(Path(folder))[1])
        upright = ImageOps.exif_transpose(stored)
    pen = ImageDraw.Draw(upright)
    width, height = upright.size
    left, top = int(width * _PLACE[0]), int(height * 0.42)
    for line in range(12):
        pen.line((left - 700, top - 500 + 30 * line, left + 700, top - 440 + 26 * line), fill=(20, 22, 30), width=3)
    for row in range(5):
        pen.text(
            (left - 400, top + 60 + 70 * row),
            "each letter has an edge to keep",
            fill=(250, 250, 245),
            font=ImageFont.load_default(30 + 8 * row),
        )
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    out = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(out, format="JPEG", quality=95, exif=exif)
    return out.getvalue()


def _column(name: str, result: bytes, original: bytes) -> Image.Image:
    """A result as a whole above a section of it, with a label."""
    picture = Image.open(io.BytesIO(result)).convert("RGB")
    whole = ImageOps.pad(picture, (_WHOLE_PX, _WHOLE_PX), color="white")
    column = Image.new("RGB", (_WHOLE_PX, 2 * _LABEL_PX + _WHOLE_PX + _PART_PX * _ENLARGED), "white")
    pen, font = ImageDraw.Draw(column), ImageFont.load_default(17)
    says = f"{name}: {picture.width} x {picture.height}, {len(result) / 1000:.0f} KB"
    print(says)
    pen.text((4, 12), says, fill="black", font=font)
    column.paste(whole, (0, _LABEL_PX))
    pen.text((4, _LABEL_PX + _WHOLE_PX + 12), "a part of it, twice its size", fill="black", font=font)
    column.paste(_part(picture, original), (0, 2 * _LABEL_PX + _WHOLE_PX))
    return column


def _part(picture: Image.Image, original: bytes) -> Image.Image:
    """The same section of the scene, for an upright picture and for one on its side."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(original)))
    if (picture.width > picture.height) != (upright.width > upright.height):
        picture = picture.transpose(Image.Transpose.ROTATE_270)  # for the eye; the result itself lies on its side
    left, top = (int(share * size) - _PART_PX // 2 for share, size in zip(_PLACE, picture.size, strict=True))
    part = picture.crop((left, top, left + _PART_PX, top + _PART_PX))
    return part.resize((_PART_PX * _ENLARGED, _PART_PX * _ENLARGED), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()

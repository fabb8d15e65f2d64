"""Pictures for the benchmarks: photos from a folder of yours, and larger ones that show them side by side."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageDraw

__all__ = ["Picture", "as_png", "enlarged", "photo_paths", "photos", "progressive", "screenshot", "tiled"]


@dataclass(frozen=True)
class Picture:
    """A picture's file.

    Parameters:
      name: its name in tables.
      data: its bytes.
    """

    name: str
    data: bytes

    @cached_property
    def size(self) -> tuple[int, int]:
        return Image.open(io.BytesIO(self.data)).size

    @property
    def megapixels(self) -> float:
        return self.size[0] * self.size[1] / 1e6

    def pixels(self) -> Image.Image:
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image


def photo_paths(folder: Path) -> list[Path]:
    """The JPEG files of a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})


def photos(folder: Path) -> list[Picture]:
    """The JPEG files of a folder, with their bytes."""
    return [Picture(path.stem, path.read_bytes()) for path in photo_paths(folder)]


def tiled(photo: Picture, across: int, down: int, size_bytes: int) -> Picture:
    """A larger photo: the same one several times, side by side, in a file of about `size_bytes`."""
    tile = photo.pixels()
    width, height = tile.size
    page = Image.new("RGB", (width * across, height * down))
    for column in range(across):
        for row in range(down):
            page.paste(tile, (column * width, row * height))
    encoded = [_encoded(page, "JPEG", quality=quality) for quality in (95, 93, 90, 87, 84, 80, 75)]
    data = min(encoded, key=lambda data: abs(len(data) - size_bytes))
    return Picture(f"{photo.name} × {across * down}", data)


def as_png(photo: Picture) -> Picture:
    """The same pixels as a PNG."""
    return Picture(f"{photo.name}, PNG", _encoded(photo.pixels().convert("RGB"), "PNG"))


def progressive(photo: Picture) -> Picture:
    """About the same pixels as a progressive JPEG; its decoder needs all coefficients in memory at once."""
    return Picture(f"{photo.name}, progressive", _encoded(photo.pixels(), "JPEG", quality=90, progressive=True))


def enlarged(photo: Picture, width: int, height: int) -> Picture:
    """The photo with other sides."""
    pixels = photo.pixels().resize((width, height), Image.Resampling.LANCZOS)
    return Picture(f"{photo.name}, {width} × {height}", _encoded(pixels, "JPEG", quality=95))


def screenshot(photo: Picture, width: int = 4000, height: int = 3000) -> Picture:
    """A drawing of flat areas, edges and text, a quarter of it covered by a photo, as a PNG."""
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for row in range(height // 50):
        shade = (row * 37 % 256, row * 91 % 256, row * 53 % 256)
        pen.rectangle((0, row * 50, row * 211 % width, row * 50 + 20), fill=shade)
        for column in range(width // 400):
            pen.text((column * 400, row * 50 + 22), f"row {row}, column {column}: measured with text", fill="black")
            pen.ellipse((column * 400 + 300, row * 50, column * 400 + 340, row * 50 + 40), outline=shade, width=3)
    page.paste(photo.pixels().resize((width // 2, height // 2)), (width // 4, height // 4))
    return Picture("screenshot with a photo, PNG", _encoded(page, "PNG"))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)  # type: ignore[arg-type]
    return out.getvalue()

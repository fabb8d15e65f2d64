"""Drawn pictures: difference and bytes of their results, beside the encoding of photos.

    python -m benchmarks.drawn

A difference is the mean over all pixels and channels, in levels of 255; transparent pictures are compared on white. A
picture beyond the longest edge is compared after its reduction to that edge.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageStat

from dream.imaging import Limits, OutputFormat, process_file
from dream.imaging.content import PHOTO
from dream.imaging.decode import decode, open_image
from dream.imaging.encode import encode
from dream.imaging.transform import lay_on_white, prepare

__all__ = ["difference", "drawings", "main"]

_WORDS = "The quick brown fox jumps over the lazy dog, 0123456789. "


def main() -> None:
    """Print the table."""
    print("| picture | pixels | as a photo | `auto` | `jpeg` | `webp` | `avif` |\n| --- |" + " --- |" * 6)
    for name, picture in drawings():
        data = _png(picture)
        cells = [_as_photo(data), *(_processed(data, wanted) for wanted in ("auto", "jpeg", "webp", "avif"))]
        print(f"| {name} | {picture.width} × {picture.height} | {' | '.join(cells)} |", flush=True)


def drawings() -> Iterator[tuple[str, Image.Image]]:
    """Pictures that are no photos; the same ones each time."""
    yield "64 colours at random", _palette_noise(64, (64, 64))
    yield "16 colours at random", _palette_noise(16, (320, 240))
    yield "red words on blue", _words((800, 600), (230, 20, 20), (20, 20, 200))
    yield "the same, 5K", _words((5120, 2880), (230, 20, 20), (20, 20, 200), 28)
    yield "coloured lines", _lines((1200, 800))
    yield "a gradient", _gradient((1000, 700))
    yield "a page of two colours, scanned", _words((2480, 3508), "black", "white", 40).convert("1")
    yield "a window with a gradient picture in it", _window((1280, 800))
    yield "a transparent icon", _icon((256, 256))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of both pictures as a viewer sees them, in levels of 255."""
    seen = [lay_on_white(image if image.mode == "RGBA" else image.convert("RGB")) for image in (one, other)]
    means = ImageStat.Stat(ImageChops.difference(*seen)).mean
    return sum(means) / len(means)


def _as_photo(data: bytes) -> str:
    """Encode the picture as a photo, as releases did that knew no drawings."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "out")
        limits = Limits()
        encode(prepare(decode(open_image(io.BytesIO(data), limits), limits)), target, limits, PHOTO)
        return _cell(data, target)


def _processed(data: bytes, wanted: OutputFormat) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_bytes(data)
        process_file(source, target, Limits(output_format=wanted))
        return _cell(data, target)


def _cell(data: bytes, target: Path) -> str:
    limits = Limits()
    meant = prepare(decode(open_image(io.BytesIO(data), limits), limits))
    out = Image.open(target)
    seen = out.convert("RGBA" if out.has_transparency_data else "RGB").resize(meant.size, Image.Resampling.BICUBIC)
    return f"{difference(meant, seen):.2f}, {target.stat().st_size / 1000:.1f} kB ({out.format})"


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def _palette_noise(colours: int, size: tuple[int, int]) -> Image.Image:
    chance = random.Random(colours)
    picture = Image.new("P", size)
    picture.putpalette(chance.randbytes(3 * colours))
    picture.putdata([chance.randrange(colours) for _ in range(size[0] * size[1])])
    return picture


def _words(
    size: tuple[int, int], ink: str | tuple[int, int, int], paper: str | tuple[int, int, int], height_px: int = 14
) -> Image.Image:
    picture = Image.new("RGB", size, paper)
    pen, font, chance = ImageDraw.Draw(picture), ImageFont.load_default(height_px), random.Random(1)
    for top in range(4, size[1], height_px + 4):
        line = "".join(chance.sample(_WORDS * 4, len(_WORDS) * 4))
        pen.text((6, top), line * (1 + size[0] // 1000), fill=ink, font=font)
    return picture


def _lines(size: tuple[int, int]) -> Image.Image:
    picture, chance = Image.new("RGB", size, "white"), random.Random(3)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        points = [(x, chance.randrange(size[1])) for x in range(0, size[0], 20)]
        pen.line(points, fill=tuple(chance.randbytes(3)), width=2)
    return picture


def _gradient(size: tuple[int, int]) -> Image.Image:
    down, around = Image.linear_gradient("L"), Image.radial_gradient("L")
    return Image.merge("RGB", [each.resize(size) for each in (down, around, down.rotate(90))])


def _window(size: tuple[int, int]) -> Image.Image:
    picture = _words(size, (0, 80, 160), "white", 16)
    picture.paste(_gradient((size[0] // 2, size[1] // 2)), (size[0] // 4, size[1] // 4))
    return picture


def _icon(size: tuple[int, int]) -> Image.Image:
    large = Image.new("RGBA", (4 * size[0], 4 * size[1]))
    pen = ImageDraw.Draw(large)
    pen.ellipse((20, 20, large.width - 20, large.height - 20), fill=(220, 30, 60, 255))
    pen.rectangle((large.width // 3, large.height // 3, large.width // 2, large.height - 200), fill=(20, 40, 220, 160))
    return large.resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()

"""Draw sample pictures, so that the project contains no photo of a person."""

from __future__ import annotations

import math
import random
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.ExifTags import GPS, IFD, Base

__all__ = ["draw"]

_LANDSCAPE_PX = (4000, 3000)
_PORTRAIT_PX = (3264, 2448)
_LOGO_PX = (800, 800)


def draw(folder: Path) -> list[Path]:
    """Draw the samples in `folder`; return their paths.

    `landscape.jpg`: 12 million pixels, like a camera's photo. `portrait-rotated.jpg`: 8 million pixels on their side,
    with orientation and place in Exif, like a phone's photo. `logo.png`: transparent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    landscape, portrait, logo = (folder / name for name in ("landscape.jpg", "portrait-rotated.jpg", "logo.png"))
    _photo(_LANDSCAPE_PX, seed=1).save(landscape, quality=92)
    upright = _photo((_PORTRAIT_PX[1], _PORTRAIT_PX[0]), seed=2)
    upright.transpose(Image.Transpose.ROTATE_90).save(portrait, quality=92, exif=_phone_exif())
    _logo().save(logo)
    return [landscape, portrait, logo]


def _photo(size: tuple[int, int], seed: int) -> Image.Image:
    """Sky, sun, hills and grain."""
    dice = random.Random(seed)  # noqa: S311 (a drawing)
    width, height = size
    # Soft shapes are drawn small and enlarged.
    small = (width // 4, height // 4)
    picture = _gradient(small, (52, 104, 186), (250, 214, 170))
    _draw_sun(picture, dice)
    for layer in range(5):
        _draw_hills(picture, dice, layer)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    return _add_grain(picture)


def _gradient(size: tuple[int, int], top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)


def _draw_sun(picture: Image.Image, dice: random.Random) -> None:
    width, height = picture.size
    radius = height // 12
    x, y = dice.randrange(width // 4, 3 * width // 4), height // 4
    glow = Image.new("L", picture.size)
    ImageDraw.Draw(glow).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    glow = ImageChops.lighter(glow, glow.filter(ImageFilter.BoxBlur(radius)))
    picture.paste((255, 246, 214), mask=glow)


def _draw_hills(picture: Image.Image, dice: random.Random, layer: int) -> None:
    """A ridge of three waves, nearer and darker with each layer."""
    width, height = picture.size
    base = height * (0.45 + 0.12 * layer)
    waves = [(height / 14 / wave, dice.uniform(1, 3) * wave, dice.uniform(0, 6)) for wave in (1, 3, 9)]
    ridge = [
        (x, base + sum(high * math.sin(math.tau * x / width * fast + shift) for high, fast, shift in waves))
        for x in range(0, width + 4, 4)
    ]
    shade = (120 - 22 * layer, 140 - 18 * layer, 120 - 24 * layer)
    ImageDraw.Draw(picture).polygon([*ridge, (width + 4, height), (0, height)], fill=shade)


def _add_grain(picture: Image.Image) -> Image.Image:
    """Fine noise over coarse noise, like that of sensors and leaves."""
    width, height = picture.size
    fine = Image.effect_noise(picture.size, 16)
    coarse = Image.effect_noise((width // 6, height // 6), 18).resize(picture.size, Image.Resampling.BICUBIC)
    grain = Image.blend(fine, coarse, 0.5)
    return ImageChops.add(picture, Image.merge("RGB", (grain, grain, grain)), scale=1, offset=-128)


def _phone_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make] = "dream"
    exif[Base.Model] = "Sample"
    exif[Base.Orientation] = 6
    exif[Base.DateTime] = "2026:01:01 12:00:00"
    exif.get_ifd(IFD.GPSInfo).update(
        {
            GPS.GPSLatitudeRef: "N",
            GPS.GPSLatitude: (51.0, 28.0, 40.12),
            GPS.GPSLongitudeRef: "W",
            GPS.GPSLongitude: (0.0, 0.0, 5.31),
        }
    )
    return exif


def _logo() -> Image.Image:
    """A moon in a ring on a transparent ground."""
    width, height = _LOGO_PX
    logo = Image.new("RGBA", (2 * width, 2 * height))
    pen = ImageDraw.Draw(logo)
    pen.ellipse((80, 80, 2 * width - 80, 2 * height - 80), outline=(88, 80, 190, 255), width=90)
    pen.ellipse((400, 400, 1200, 1200), fill=(250, 204, 92, 255))
    pen.ellipse((600, 340, 1300, 1040), fill=(0, 0, 0, 0))
    pen.ellipse((1090, 1090, 1190, 1190), fill=(88, 80, 190, 128))
    return logo.resize(_LOGO_PX, Image.Resampling.LANCZOS)

"""The grammar of `DREAM_VARIANTS`: name, box, fit, format and quality of each variant of a picture.

    thumb:320                longest edge 320 px
    card:640x480:cover       640 × 480 px, cropped around the focal point
    hero:1920x:webp:80       1920 px wide, WebP of quality 80
    column:x900              900 px high

`DREAM_WIDTHS=320,640` makes a ladder of such variants: `w320:320x` and `w640:640x`.
Settings and rows hold the same text, so a row says how its variant was made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

__all__ = ["FULL", "LEAST_PX", "MOST_PX", "VariantSpec"]

#: The name of the picture itself in another format, which is stored as one of its variants.
FULL = "full"

_NAME = re.compile(r"[a-z0-9_-]{1,32}")
_SIZE = re.compile(r"(?P<edge>[0-9]{1,5})|(?P<width>[0-9]{1,5})?x(?P<height>[0-9]{1,5})?")
#: The shortest and the longest side of a box.
LEAST_PX, MOST_PX = 16, 16383
_POINT = re.compile(r"([01]\.[0-9]{6}),([01]\.[0-9]{6})")
_FORMATS = ("jpeg", "webp", "avif")


def _pixels(digits: str | None) -> int | None:
    return int(digits) if digits else None


class VariantSpec(NamedTuple):
    """A variant to make of each picture.

    Parameters:
      name: 1 to 32 of `a-z`, `0-9`, `_` and `-`; part of its file's name and of its key.
      width_px, height_px: the box; None leaves that side free. At least one is set, both with `cover`.
      fit: `fit` keeps the whole picture inside the box; `cover` fills the box and crops the rest. Neither enlarges.
      format: its format; None means the format of the picture.
      quality: its highest quality, 1 to 100; None means dream's own. The byte budget applies in any case.
    """

    name: str
    width_px: int | None
    height_px: int | None
    fit: Literal["fit", "cover"] = "fit"
    format: Literal["jpeg", "webp", "avif"] | None = None
    quality: int | None = None

    @classmethod
    def within(cls, name: str, edge_px: int) -> Self:
        """The variant whose longest edge is at most `edge_px`."""
        return cls(name, edge_px, edge_px)

    @classmethod
    def rung(cls, width_px: int) -> Self:
        """The variant of `DREAM_WIDTHS` that is `width_px` wide."""
        return cls(f"w{width_px}", width_px, None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an item of `DREAM_VARIANTS`.

        Raises:
          ValueError: the text is no variant; the message says what is wrong.
        """
        name, _, definition = text.strip().partition(":")
        if not _NAME.fullmatch(name):
            raise ValueError(f"the name {name!r} must be 1 to 32 of a-z, 0-9, _ and -")
        size, *options = definition.split(":")
        match = _SIZE.fullmatch(size)
        edge, width, height = match.group("edge", "width", "height") if match else (None, None, None)
        sides = (_pixels(edge or width), _pixels(edge or height))
        given = [side for side in sides if side is not None]
        if not given or not all(LEAST_PX <= side <= MOST_PX for side in given):
            raise ValueError(
                f"{text}: the size must be a longest edge (320), a box (640x480), a width (640x) or a height (x480), "
                f"in {LEAST_PX} to {MOST_PX} pixels"
            )
        spec = cls(name, sides[0], sides[1])
        for option in options:
            spec = spec._with(option, text)
        if spec.fit == "cover" and len(given) < len(sides):
            raise ValueError(f"{text}: cover needs a width and a height, as in card:640x480:cover")
        return spec

    def _with(self, option: str, text: str) -> Self:
        if option in {"fit", "cover"}:
            return self._replace(fit=option)  # type: ignore[arg-type]
        if option in _FORMATS:
            return self._replace(format=option)  # type: ignore[arg-type]
        if option.isascii() and option.isdecimal() and 1 <= int(option) <= 100:
            return self._replace(quality=int(option))
        raise ValueError(f"{text}: {option!r} must be fit, cover, jpeg, webp, avif, or a quality from 1 to 100")

    @classmethod
    def of_row(cls, pair: Any) -> Self:
        """The variant that a row has as `[name, definition]`; older releases wrote `[name, longest edge]`."""
        name, definition = pair
        return cls.parse(f"{name}:{definition}")

    @property
    def is_rung(self) -> bool:
        """Whether it is one of `DREAM_WIDTHS`."""
        return self.width_px is not None and self == self.rung(self.width_px)

    @property
    def is_whole(self) -> bool:
        """Whether pages show it in place of the picture itself: of an animation it must not be a still."""
        return self.name == FULL or self._replace(format=None).is_rung

    def is_made_of(self, size: tuple[int, int]) -> bool:
        """Whether a picture of `size` pixels gets it: no rung is as wide as the picture, or wider."""
        return not self.is_rung or self.size_for(size)[0] < size[0]

    @property
    def row(self) -> list[Any]:
        """The form for `dream_images.wanted_variants`; a plain longest edge stays a number, for older releases."""
        definition = self.definition
        return [self.name, int(definition) if definition.isdecimal() else definition]

    @classmethod
    def of_recipe(cls, name: str, recipe: str) -> tuple[Self, tuple[float, float] | None]:
        """Read a text that `recipe` wrote: the variant, and the given focal point if it has one.

        Raises:
          ValueError: the text is no recipe; the message says what is wrong.
        """
        definition, _, point = recipe.partition("@")
        spec = cls.parse(f"{name}:{definition}")
        if not point:
            return spec, None
        match = _POINT.fullmatch(point)
        if match is None or not all(0 <= float(share) <= 1 for share in match.groups()):
            raise ValueError(f"{recipe}: the focal point must be two numbers from 0 to 1, as in @0.5,0.25")
        return spec, (float(match[1]), float(match[2]))

    def recipe(self, focus: Sequence[float] | None) -> str:
        """All that decides the pixels: the definition, and the given focal point if a crop keeps it."""
        if self.fit != "cover" or focus is None:
            return self.definition
        return f"{self.definition}@{focus[0]:.6f},{focus[1]:.6f}"

    @property
    def definition(self) -> str:
        """All but the name, always written the same way: two variants of one definition have the same pixels."""
        if self.width_px == self.height_px:
            size = f"{self.width_px}"
        else:
            size = f"{self.width_px or ''}x{self.height_px or ''}"
        options = ("cover" if self.fit == "cover" else None, self.format, self.quality)
        return ":".join([size, *(f"{option}" for option in options if option is not None)])

    def size_for(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size in pixels of this variant of a picture of `size` pixels; it is never larger than the picture."""
        width, height = size
        ratios = [side / own for side, own in ((self.width_px, width), (self.height_px, height)) if side is not None]
        if self.fit == "fit":
            scale = min(1.0, *ratios)
            return max(1, round(width * scale)), max(1, round(height * scale))
        # A picture that is smaller than the box gives the largest part of the box's shape.
        box_width, box_height = self.width_px or width, self.height_px or height
        shrink = min(1.0, width / box_width, height / box_height)
        return max(1, round(box_width * shrink)), max(1, round(box_height * shrink))

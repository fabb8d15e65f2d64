"""The widths of a picture among which browsers choose: `srcset` of `<img>`, and `<source>` for other formats.

Only the ladder of `DREAM_WIDTHS` (`w320`, `w640`, …) and the picture itself stand for the picture: another variant may
be a crop, of low quality, or the first frame of an animation. A version in another format has it behind a dot:
`w320.avif`, and `full.avif` for the picture itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dream.variants import FULL

__all__ = ["Source", "sources_of", "srcset_of"]

#: Formats for `<source>`, from the smallest files to the largest.
_FORMATS = {"avif": "image/avif", "webp": "image/webp"}


class Source(NamedTuple):
    """The same widths in another format, for browsers that show it.

    Parameters:
      content_type: for `type` of `<source>`.
      srcset: for `srcset`.
    """

    content_type: str
    srcset: str


def srcset_of(image: Any, seen: Callable[[str], str] = str) -> str | None:
    """The `srcset` of a stored picture, by widths; None if there is one width only.

    Parameters:
      image: a picture's row, or an object with `url`, `width_px` and `variants`.
      seen: makes the URL for a page from the canonical one.
    """
    widths = _widths(image)
    return _text(widths, seen) if len(widths) > 1 else None


def sources_of(image: Any, seen: Callable[[str], str] = str) -> list[Source]:
    """The formats in which every width of `srcset_of` is stored, the best first. Arguments as of `srcset_of`.

    A browser looks at one `<source>` only: if some widths were missing, it might load a larger file than it needs, or
    a smaller one.
    """
    own = _widths(image)
    others = [(kind, _widths(image, name)) for name, kind in _FORMATS.items() if kind != image.content_type]
    return [Source(kind, _text(widths, seen)) for kind, widths in others if own and widths.keys() == own.keys()]


def _widths(image: Any, extension: str = "") -> Mapping[int, str]:
    """The URLs by width: rungs that are narrower than the picture, and the picture itself, in one format."""
    full_px = image.width_px
    if not image.url or not full_px:
        return {}
    behind = f".{extension}" if extension else ""
    rungs = [each for each in image.variants or () if each["name"] == f"w{each['width_px']}{behind}"]
    found = {each["width_px"]: each["url"] for each in rungs if each["width_px"] < full_px}
    if not extension:
        return {**found, full_px: image.url}
    full = [each for each in image.variants or () if each["name"] == f"{FULL}{behind}"]
    return found | {each["width_px"]: each["url"] for each in full}


def _text(widths: Mapping[int, str], seen: Callable[[str], str]) -> str:
    return ", ".join(f"{seen(widths[width])} {width}w" for width in sorted(widths))

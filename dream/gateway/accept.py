"""The format that a browser takes, by its header `Accept` (RFC 9110, 12.5.1).

image/avif,image/webp,image/*,*/*;q=0.8   AVIF: it is named, and no format has a higher weight
image/*,*/*;q=0.8                         the stored format: no format is named
image/avif;q=0,image/webp                 WebP
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from dream.messages.pictures import OUTPUT_FORMATS

__all__ = ["Wish", "wish_of"]

_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
#: Formats by their bytes, the fewest first; the first of several with equal weights is chosen.
_BEST = ("avif", "webp", "jpeg")
_WILD = ("image/*", "*/*")
#: The most ranges that are read of a header; browsers send a dozen.
_MOST_RANGES = 50


class Wish(NamedTuple):
    """The answer that a browser wants.

    Parameters:
      extension: the format, a key of `OUTPUT_FORMATS`; None means the stored one.
      types: the media types that it takes.
    """

    extension: str | None
    types: frozenset[str]


def wish_of(accept: str | None, stored_type: str | None) -> Wish:
    """The best answer for a browser.

    Parameters:
      accept: the header; without one, everything but AVIF is taken, as by `*/*`.
      stored_type: the media type of the stored picture.
    """
    weights = _weights(accept) if accept is not None else {"*/*": 1.0}
    wild = next((weights[each] for each in _WILD if each in weights), 0.0)
    wanted = {name: weights.get(_type(name), 0.0 if name == "avif" else wild) for name in _BEST}
    types = frozenset(_type(name) for name, weight in wanted.items() if weight > 0)
    stored = next((name for name in _BEST if _type(name) == stored_type), None)
    most = max(wanted.values())
    if not most:
        return Wish(None, types)  # no format is wanted, so the stored one answers
    for name in _BEST:
        # A range such as image/* is no reason to make another format.
        is_named = weights.get(_type(name), 0.0) == most
        if name == stored and wanted[name] == most:
            return Wish(None, types)
        if is_named and not (stored is None and name == "jpeg"):  # a PNG of an older system may be transparent
            return Wish(name, types)
    if stored is None or wanted[stored]:
        return Wish(None, types)
    return Wish("jpeg" if wanted["jpeg"] else "webp", types)


def _type(name: str) -> str:
    return OUTPUT_FORMATS[name].content_type


def _weights(accept: str) -> Mapping[str, float]:
    """The weight of each media range; a range with a wrong weight is left out."""
    weights: dict[str, float] = {}
    for item in accept.lower().split(",", _MOST_RANGES)[:_MOST_RANGES]:
        kind, *parameters = (part.strip() for part in item.split(";"))
        weight = next((part for part in parameters if part.startswith("q=")), "q=1")
        if kind and (match := _WEIGHT.fullmatch(weight)):
            weights[kind] = float(match[1])
    return weights

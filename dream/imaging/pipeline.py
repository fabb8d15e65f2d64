"""One picture from its file to the processed file beside its variants.

open (limits) ─► decode ─► prepare (reduce, colours, upright) ─► encode (budget) ─► variants, placeholder
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from dream.imaging import Processed
from dream.imaging.budget import Encoded, encode
from dream.imaging.decode import decode, open_image
from dream.imaging.encode import kind_for
from dream.imaging.limits import Limits
from dream.imaging.placeholder import placeholder
from dream.imaging.resize import swatch
from dream.imaging.transform import prepare
from dream.imaging.variants import dominant_colour, make_variants

__all__ = ["process"]

#: Enough to know a picture's colours by.
_SWATCH_EDGE_PX = 64


def process(source: Path | BinaryIO, target: Path, limits: Limits) -> Processed:
    """Process the picture in `source` into `target`, its variants beside it; errors as `process_file`."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        image = prepare(decode(open_image(file, limits), limits))
    encoded = encode(image, target, limits.max_bytes, kind_for(image, limits.output_format))
    return _described(encoded, image, target, limits)


def _described(encoded: Encoded, image: Image.Image, target: Path, limits: Limits) -> Processed:
    """What is told of a picture that was written, and its variants, made from `image`."""
    small = swatch(image, _SWATCH_EDGE_PX)
    return Processed(
        **asdict(encoded),
        placeholder=placeholder(small),
        dominant_colour=dominant_colour(small),
        variants=make_variants(image, target, limits),
    )

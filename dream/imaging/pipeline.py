"""One picture from its file to the processed file beside its variants.

open (limits) ─► decode ─► prepare (reduce, colours, upright) ─► content (photo, drawing) ─► encode (budget)
                                                                                        └─► variants, placeholder
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile

from dream.imaging import Processed
from dream.imaging.animation import animation_of, encode_animation
from dream.imaging.content import PHOTO, Content, content_of
from dream.imaging.decode import decode, open_image
from dream.imaging.encode import JPEG, Encoded, encode
from dream.imaging.limits import Limits
from dream.imaging.lossless import cleaned
from dream.imaging.placeholder import dominant_colour, placeholder
from dream.imaging.resize import SWATCH_EDGE_PX, swatch
from dream.imaging.transform import prepare
from dream.imaging.variants import make_variants

__all__ = ["process"]


def process(source: Path | BinaryIO, target: Path, limits: Limits) -> Processed:
    """Process the picture in `source` into `target`, its variants beside it; errors as `process_file`."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        opened = open_image(file, limits)
        clean = cleaned(file, opened, limits)
        if clean is not None:
            return _kept(clean, opened, target, limits)
        animation = animation_of(opened, limits)
        image = animation.frames[0] if animation else prepare(decode(opened, limits))
    if animation:
        return _described(encode_animation(animation, target, limits), image, target, limits, PHOTO)
    content = content_of(image, opened)
    return _described(encode(image, target, limits, content), image, target, limits, content)


def _kept(clean: bytes, opened: ImageFile, target: Path, limits: Limits) -> Processed:
    """Write a JPEG that stays as it is. It is decoded all the same, to know it whole and for what is made of it."""
    encoded = Encoded(JPEG.content_type, JPEG.extension, *opened.size, len(clean))
    edge_px = max((variant.edge_px for variant in limits.variants), default=SWATCH_EDGE_PX)
    image = prepare(decode(opened, replace(limits, max_edge_px=edge_px, least_edge_share=1.0)))
    target.write_bytes(clean)
    return _described(encoded, image, target, limits, content_of(image, opened))


def _described(encoded: Encoded, image: Image.Image, target: Path, limits: Limits, content: Content) -> Processed:
    """What is told of a picture that was written, and its variants, made from `image`."""
    small = swatch(image)
    return Processed(
        **asdict(encoded),
        placeholder=placeholder(small),
        dominant_colour=dominant_colour(small),
        variants=make_variants(image, target, limits, content),
    )

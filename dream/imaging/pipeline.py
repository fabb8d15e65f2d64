"""Process one picture from its file to the processed file and its variants.

open (limits) ─► decode ─► prepare (reduce, colours, upright) ─► content (photo, drawing) ─► encode (budget)
       └─► gain map (HDR) ─────────────────────────────────────────────────────────────────┘ └─► variants, placeholder
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from dream.imaging.animation import animation_of, encode_animation, is_animation
from dream.imaging.content import PHOTO, Content, content_of, content_of_pixels
from dream.imaging.crop import Point, cut, least_edge_px
from dream.imaging.decode import Decoded, decode, open_image, upright_size
from dream.imaging.encode import JPEG, Encoded, affordable_photo_px
from dream.imaging.focus import FOCUS_EDGE_PX, found_focus
from dream.imaging.hdr import LEAST_EDGE_PX, GainMap, encode_with, gain_map_of, sharing, with_map
from dream.imaging.kept_metadata import KeptMetadata
from dream.imaging.limits import Limits
from dream.imaging.lossless import cleaned
from dream.imaging.perceptual_hash import perceptual_hash
from dream.imaging.placeholder import dominant_colour, placeholder
from dream.imaging.processed import Processed, Variant, variant_path
from dream.imaging.transform import prepare, swatch
from dream.variants import VariantSpec

__all__ = ["process"]


def process(source: Path | BinaryIO, target: Path, limits: Limits) -> Processed:
    """Process the picture in `source` into `target`, its variants beside it; errors as `process_file`."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        opened = open_image(file, limits)
        kept = KeptMetadata(opened, limits)
        limits = kept.limits()
        if limits.only is not None:
            return kept.finish_alone(_variant_alone(limits.only, file, opened, target, limits), target)
        gain_map = gain_map_of(file, opened, limits)
        clean = cleaned(file, opened, sharing(gain_map, limits))
        if clean is not None:
            return kept.finish(_unchanged(clean, opened, target, limits, gain_map), target)
        animation = animation_of(opened, limits)
        image = animation.frames[0] if animation else prepare(_affordable(decode(opened, limits), opened, limits))
    limits = kept.limits()
    if animation:
        # Variants of an animation are stills; a rung would stand for the picture itself.
        limits = limits.wanting(spec for spec in limits.variants if not spec.is_rung)
        animated = encode_animation(animation, target, limits)
        return kept.finish(_described(animated, image, target, limits, PHOTO), target)
    content = content_of(image, opened)
    encoded = encode_with(gain_map, image, target, limits, content)
    return kept.finish(_described(encoded, image, target, limits, content, gain_map), target)


def _affordable(decoded: Decoded, opened: ImageFile, limits: Limits) -> Decoded:
    """The same picture with a size whose file fits: a second reduction would cost time and sharpness."""
    if not isinstance(opened, JpegImageFile):
        return decoded
    return replace(decoded, fitted_px=affordable_photo_px(decoded.image, decoded.fitted_px, limits))


def _variant_alone(spec: VariantSpec, file: BinaryIO, opened: ImageFile, target: Path, limits: Limits) -> Processed:
    """Write one variant to `target`, and not the picture; of an animation it is a still."""
    gain_map = gain_map_of(file, opened, replace(limits, output_format="jpeg"))
    loses_motion = spec.is_whole and is_animation(opened)
    size = limits.fit(upright_size(opened))
    edge_px = max(FOCUS_EDGE_PX, least_edge_px(size, [spec]))
    image = prepare(decode(opened, replace(limits, max_edge_px=edge_px, least_edge_share=1.0)))
    focus = limits.focus or found_focus(swatch(image, FOCUS_EDGE_PX))
    encoded = _make_variant(spec, image, size, target, limits, content_of(image, opened), focus, gain_map)
    is_large = max(encoded.width_px, encoded.height_px) >= LEAST_EDGE_PX
    chose_format = spec.format is not None
    loses_hdr = chose_format and gain_map is not None and is_large and encoded.content_type != JPEG.content_type
    described = _described(encoded, image, target, limits, PHOTO)
    return replace(described, loses_motion=loses_motion, loses_hdr=loses_hdr)


def _unchanged(clean: bytes, opened: ImageFile, target: Path, limits: Limits, gain_map: GainMap | None) -> Processed:
    """Write a JPEG whose pixels stay. It is decoded all the same: for a check, and for variants and placeholder."""
    encoded = Encoded(JPEG.content_type, JPEG.extension, *opened.size, len(clean))
    limits = limits.wanting(spec for spec in limits.variants if spec.is_made_of(opened.size))
    edge_px = max(FOCUS_EDGE_PX, least_edge_px(opened.size, limits.variants))
    image = prepare(decode(opened, replace(limits, max_edge_px=edge_px, least_edge_share=1.0)))
    target.write_bytes(clean)
    encoded = with_map(gain_map, encoded, target, limits)
    return _described(encoded, image, target, limits, content_of(image, opened), gain_map, opened.size)


def _described(
    encoded: Encoded,
    image: Image.Image,
    target: Path,
    limits: Limits,
    content: Content,
    gain_map: GainMap | None = None,
    size: tuple[int, int] | None = None,
) -> Processed:
    """The description of a picture that was written, and of its variants, made from `image`.

    Parameters:
      gain_map: the picture's, if it has one.
      size: the size of the picture in pixels, if `image` is a reduced copy.
    """
    seen = swatch(image, FOCUS_EDGE_PX)
    small, found = swatch(seen), found_focus(seen)
    written_px = encoded.width_px, encoded.height_px
    limits = limits.wanting(spec for spec in limits.variants if spec.is_made_of(written_px))
    return Processed(
        **asdict(encoded),
        placeholder=placeholder(small),
        dominant_colour=dominant_colour(small),
        perceptual_hash=perceptual_hash(small),
        found_focus=found,
        variants=_make_variants(image, size or image.size, target, limits, content, limits.focus or found, gain_map),
    )


def _make_variants(
    image: Image.Image,
    size: tuple[int, int],
    target: Path,
    limits: Limits,
    content: Content,
    focus: Point,
    gain_map: GainMap | None,
) -> tuple[Variant, ...]:
    """Write each wanted variant beside `target`; none is larger than the picture, and none exceeds the byte budget.

    Parameters:
      image: in mode L, RGB or RGBA, upright.
      size: the size of the picture in pixels; `image` may be a reduced copy (`least_edge_px`).
      content: photo or drawing. Each variant of a drawing is judged again: reduced, it may not look drawn any more.
      focus: the point that cropped variants keep.
      gain_map: the picture's, if it has one. Large JPEGs keep it.

    Raises:
      ImageRejected: the byte budget is too small for any picture.
      OSError: a file could not be written.
    """
    made = []
    for spec in limits.variants:
        path = variant_path(target, spec.name)
        encoded = _make_variant(spec, image, size, path, limits, content, focus, gain_map)
        made.append(Variant(name=spec.name, **asdict(encoded)))
    return tuple(made)


def _make_variant(
    spec: VariantSpec,
    image: Image.Image,
    size: tuple[int, int],
    path: Path,
    limits: Limits,
    content: Content,
    focus: Point,
    gain_map: GainMap | None,
) -> Encoded:
    small = cut(image, size, spec, focus)
    shows = content_of_pixels(small) if content.is_drawn else content
    own = limits.of_variant(spec, max(small.size))
    return encode_with(gain_map, small, path, own, shows, focus)

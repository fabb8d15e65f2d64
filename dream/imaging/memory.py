"""The memory that decoding a picture takes, estimated from its header, so that too large ones are refused before.

Most of it is pixels: the decoder's own, those that it hands over, and the picture that Pillow makes of them. JPEGs are
decoded row by row and at a reduced scale, but for several scans the decoder holds all coefficients at full size.
`python -m benchmarks.memory` measures each kind.
"""

from __future__ import annotations

from PIL.ImageFile import ImageFile

from dream.errors import ImageRejected
from dream.imaging.limits import Limits
from dream.imaging.mapped import Bytes

__all__ = ["animation_bytes", "check_memory", "coefficient_bytes", "pixel_bytes"]

#: Bytes a pixel at the peak, as measured with pictures of 40 million pixels, and a little more.
_BYTES_A_PIXEL = {"PNG": 12, "WEBP": 14, "AVIF": 16, "HEIF": 16, "TIFF": 12, "BMP": 8, "GIF": 8}
_BYTES_A_CANVAS_PIXEL, _BYTES_A_HELD_PIXEL = 21, 8
#: A block of a JPEG has 64 coefficients of 16 bits.
_BLOCK_PX, _BLOCK_BYTES = 8, 128


def check_memory(needed_bytes: int, limits: Limits, advice: str = "make it smaller") -> None:
    """Check an estimate against the limit.

    Raises:
      ImageRejected: it is above the limit.
    """
    if needed_bytes > limits.max_decoding_bytes:
        raise ImageRejected(
            f"the picture takes about {needed_bytes / 1e6:.0f} MB of memory to be decoded, more than the "
            f"{limits.max_decoding_bytes / 1e6:.0f} MB allowed; {advice}"
        )


def pixel_bytes(image: ImageFile) -> int:
    """The memory that decoding a picture takes; 0 for a JPEG, which `coefficient_bytes` estimates."""
    return image.width * image.height * _BYTES_A_PIXEL.get(image.format or "", 0)


def animation_bytes(canvas_px: int, held_px: int) -> int:
    """The memory that composing and encoding an animation takes.

    Parameters:
      canvas_px: pixels of one frame as it comes in.
      held_px: pixels of all frames together as they go out.
    """
    return canvas_px * _BYTES_A_CANVAS_PIXEL + held_px * _BYTES_A_HELD_PIXEL


def coefficient_bytes(data: Bytes, frame: int) -> int:
    """The coefficients that a JPEG's decoder holds where a pixel is spread over several scans.

    Parameters:
      data: the file.
      frame: where the payload of its frame header begins (source: ITU-T T.81, B.2.2).
    """
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (1, 3))
    last = frame + 6 + 3 * sum(data[frame + 5 : frame + 6])
    factors = [(each >> 4, each & 15) for each in data[frame + 7 : last : 3]]
    across = max((each for each, _ in factors), default=1)
    down = max((each for _, each in factors), default=1)
    return sum(_blocks(width * h, across) * _blocks(height * v, down) for h, v in factors) * _BLOCK_BYTES


def _blocks(samples: int, highest: int) -> int:
    return -(-samples // (max(1, highest) * _BLOCK_PX))

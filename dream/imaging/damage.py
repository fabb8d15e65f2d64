"""Whatever the decoders raise on bad input becomes `ImageRejected`, with a sentence for the picture's owner."""

from __future__ import annotations

import errno
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from dream.errors import ImageRejected

__all__ = ["DAMAGED", "RAISED_BY_DECODERS", "TOO_MANY_PARTS", "UNCOMMON", "rejecting_damage"]

DAMAGED = "the picture is damaged or incomplete"
TOO_MANY_PARTS = "the file is made of too many small pieces"
UNCOMMON = "the picture is stored in an uncommon way that is not supported; save it as JPEG or PNG"

#: An error without a number is a decoder's; the others come of places in the file that cannot be.
_NOT_THE_DISKS_FAULT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})

#: What decoders say, and what it means to a picture's owner; all else is damage.
_REASONS = (
    (re.compile(r"exceeds limit", re.IGNORECASE), "the picture has far more pixels than are accepted"),
    (
        re.compile(r"decompressed data too large|too much memory used in text", re.IGNORECASE),
        "the picture carries a longer text or a larger colour profile than is accepted",
    ),
    (
        re.compile(
            r"unsupported|not supported|cannot handle|unknown (data organization|pixel mode)|bits layout", re.IGNORECASE
        ),
        UNCOMMON,
    ),
)

#: What Pillow and the libraries under it are seen to raise on bad input.
RAISED_BY_DECODERS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@contextmanager
def rejecting_damage() -> Iterator[None]:
    """Decode within this.

    Raises:
      ImageRejected: the picture is damaged, incomplete, or nothing that the decoder can read.
      OSError: the file could not be read: the disk's fault, not the picture's.
      MemoryError: there was not enough memory.
    """
    try:
        yield
    except ImageRejected:  # it says already what is wrong
        raise
    except RAISED_BY_DECODERS as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THE_DISKS_FAULT:
            raise
        if "out of memory" in str(error):  # Pillow's codecs say so in an OSError without a number
            raise MemoryError(str(error)) from error
        raise ImageRejected(_reason(str(error))) from error


def _reason(message: str) -> str:
    return next((reason for pattern, reason in _REASONS if pattern.search(message)), DAMAGED)

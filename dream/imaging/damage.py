"""Translate every error of the decoders into `ImageRejected`, with a sentence for the picture's owner."""

from __future__ import annotations

import errno
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from dream.errors import ImageRejected, Reason

__all__ = ["RAISED_BY_DECODERS", "rejecting_damage"]

#: An error without a number is a decoder's; these numbers come from impossible places in the file.
_NOT_THE_DISKS_FAULT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})

#: Messages of decoders, and the reason for a picture's owner; any other message means damage.
_REASONS = (
    (re.compile(r"exceeds limit", re.IGNORECASE), Reason.FAR_TOO_MANY_PIXELS),
    (
        re.compile(r"decompressed data too large|too much memory used in text", re.IGNORECASE),
        Reason.METADATA_TOO_LARGE,
    ),
    (
        re.compile(
            r"unsupported|not supported|cannot handle|unknown (data organization|pixel mode)|bits layout", re.IGNORECASE
        ),
        Reason.FORMAT_NOT_SUPPORTED,
    ),
)

#: The errors that Pillow and the libraries under it raise on bad input.
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
    """Turn errors of decoders inside the block into `ImageRejected`.

    Raises:
      ImageRejected: the picture is damaged, incomplete, or unreadable for the decoder.
      OSError: the file could not be read: the disk's fault, not the picture's.
      MemoryError: there was not enough memory.
    """
    try:
        yield
    except ImageRejected:  # it has its reason already
        raise
    except RAISED_BY_DECODERS as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THE_DISKS_FAULT:
            raise
        if "out of memory" in str(error):  # damage: Pillow's codecs raise an OSError without a number
            raise MemoryError(str(error)) from error
        raise ImageRejected.because(_reason(str(error))) from error


def _reason(message: str) -> Reason:
    return next((reason for pattern, reason in _REASONS if pattern.search(message)), Reason.IMAGE_DAMAGED)

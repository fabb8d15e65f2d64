"""Pictures processed here and now, as callers of the old system do it: from bytes to bytes, by the settings."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path

from dream.blocking import warn_on_loop
from dream.errors import InvalidArguments
from dream.imaging.limits import Limits

__all__ = ["process_image"]


def process_image(image_data: bytes, filename: str, max_size: int = 2**20) -> bytes:
    """Process a picture here and now: upright, sRGB, without private metadata, and of at most `max_size` bytes.

    Parameters:
      image_data: the file.
      filename: its name. Files are told apart by what is in them, so this decides nothing.
      max_size: byte budget of the result.

    Returns:
      A JPEG, or a WebP where the picture is drawn, transparent or moves; another where `DREAM_OUTPUT_FORMAT` says so.

    Raises:
      ImageRejected: it is no picture that can be processed; the message is for its owner.
      InvalidArguments: an argument is of the wrong type.
    """
    from dream.imaging.pipeline import process
    from dream.settings import load

    warn_on_loop("process_image")
    if not isinstance(image_data, (bytes, bytearray, memoryview)):
        raise InvalidArguments(f"image_data must be bytes, not {type(image_data).__name__}")
    if not isinstance(filename, str):
        raise InvalidArguments(f"filename must be a string, not {type(filename).__name__}")
    if not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 1:
        raise InvalidArguments(f"max_size must be a positive number of bytes, not {max_size!r}")
    with tempfile.TemporaryDirectory(prefix="dream-image-") as folder:
        target = Path(folder, "processed")
        process(io.BytesIO(image_data), target, replace(Limits.of(load()), max_bytes=max_size, variants=()))
        return target.read_bytes()

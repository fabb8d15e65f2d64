"""Process pictures: decode, turn, convert, fit, encode. Only files are read and written.

The first call imports Pillow, because web processes import this package and may never process a picture.
`dream.imaging.pool` runs `process_file` in processes of its own.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path

from dream.blocking import warn_on_loop
from dream.errors import InvalidArguments
from dream.fault_points import step
from dream.imaging.limits import Limits, OutputFormat
from dream.imaging.processed import Processed, Variant, variant_path
from dream.variants import VariantSpec

__all__ = [
    "Limits",
    "OutputFormat",
    "Processed",
    "Variant",
    "VariantSpec",
    "process_file",
    "process_image",
    "variant_path",
]


@step("decode")
def process_file(source: Path, target: Path, limits: Limits) -> Processed:
    """Process the picture in `source` and write the result to `target`, which may have any names.

    Variants go to files beside the target (`variant_path`). While it runs, files of tries are there, too; a killed
    process leaves the last ones.

    Raises:
      ImageRejected: the picture is refused; the message is for its owner.
      OSError: a file could not be read or written.
      MemoryError: there was not enough memory.
    """
    from dream.imaging.pipeline import process

    return process(source, target, limits)


def process_image(image_data: bytes, filename: str, max_size: int = 2**20) -> bytes:
    """Process a picture in this process: upright, in sRGB, without private metadata, of at most `max_size` bytes.

    Parameters:
      image_data: the file.
      filename: its name, without effect: the first bytes of the file show its format.
      max_size: byte budget of the result.

    Returns:
      A JPEG, or a WebP if it is transparent, animated or a drawing that fits losslessly; or the format of
        `DREAM_OUTPUT_FORMAT`.

    Raises:
      ImageRejected: the picture is refused; the message is for its owner.
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

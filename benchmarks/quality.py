"""Visual quality of results: SSIMULACRA2 against the picture at the same size (100: the same; 70 and more: high)."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image, ImageOps
from ssimulacra2 import compute_ssimulacra2

__all__ = ["score"]


def score(source: bytes, result: bytes, upright: bool = True) -> float:
    """Compare a result with its source, fully decoded and resized to the result's size by Pillow's Lanczos.

    Parameters:
      upright: whether the result has been turned by its source's orientation.
    """
    original = Image.open(io.BytesIO(source))
    if upright:
        original = ImageOps.exif_transpose(original)
    with Image.open(io.BytesIO(result)) as seen, tempfile.TemporaryDirectory() as folder:
        reference, distorted = Path(folder, "reference.png"), Path(folder, "distorted.png")
        original.convert("RGB").resize(seen.size, Image.Resampling.LANCZOS).save(reference, compress_level=1)
        seen.convert("RGB").save(distorted, compress_level=1)
        return float(compute_ssimulacra2(str(reference), str(distorted)))

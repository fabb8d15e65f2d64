"""Cost of HDR: quality and bytes that a gain map takes from its picture, the error of its light, and its time.

    python -m benchmarks.hdr --photos FOLDER [--rounds 5]

Each photo gets a gain map that brightens its highlights by up to three stops, at half of its edges and with the photo's
own detail, as telephones write it. The photo is processed with the map and without it, on one core. The last budgets
of each photo are a few bytes larger than its results without the map.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.pictures import Picture, photos
from benchmarks.quality import score
from benchmarks.rounds import medians_ms, pin
from dream.imaging import Limits, mpf, process_file
from dream.imaging.gain_map import ISO_SIGNATURE, Gains
from dream.imaging.hdr import joined
from dream.imaging.jpeg_segments import APP2, segment, with_segments

__all__ = ["main"]

_STOPS = 3.0
_BUDGETS = (2**20, 300_000, 100_000)
#: The photo's result in one of these budgets, and so many bytes more, make a budget that the photo fills.
_FILLED_NEAR, _SPARE_BYTES = (280_000, 400_000, 700_000, 1_000_000), 200


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hdr", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = [_with_map(photo) for photo in photos(options.photos)]
    if not found:
        parser.error(f"no JPEG is in {options.photos}")
    print(f"On core {pin()}.\n")
    print("| photo | budget | with map | without | loss | bytes of the map | error of light |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    losses = [_compare(photo, plain, levels, budget) for budget in _BUDGETS for photo, plain, levels in found]
    with tempfile.TemporaryDirectory() as folder:
        for photo, plain, levels in found:
            near = (_process(plain, keeps_hdr=False, folder=folder, max_bytes=each) for each in _FILLED_NEAR)
            budgets = sorted({len(result) + _SPARE_BYTES for result in near})
            losses += [_compare(photo, plain, levels, budget) for budget in budgets]
    print(f"\nSSIMULACRA2 lost: median {statistics.median(losses):.2f}, most {max(losses):.2f}\n")
    print("| photo | with map | without |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for photo, _, _ in found:
            kept, dropped = (partial(_process, photo.data, keeps_hdr=keeps, folder=folder) for keeps in (True, False))
            times = medians_ms({"kept": kept, "dropped": dropped}, options.rounds)
            print(f"| {photo.name} | {times['kept']:.0f} ms | {times['dropped']:.0f} ms |", flush=True)


def _with_map(photo: Picture) -> tuple[Picture, bytes, Image.Image]:
    """The photo as a file with a gain map, its own file, and the map's levels."""
    image = Image.open(io.BytesIO(photo.data))
    image.draft(None, (image.width // 2, image.height // 2))
    light = np.asarray(image.convert("L"), dtype=np.float32) / 255
    levels = Image.fromarray((255 * np.clip((light - 0.3) / 0.7, 0, 1) ** 1.5).astype(np.uint8))
    out = io.BytesIO()
    levels.save(out, "JPEG", quality=90)
    numbers = segment(APP2, ISO_SIGNATURE + Gains.of_headroom(_STOPS).iso())
    data = joined(photo.data, with_segments(out.getvalue(), numbers))
    return replace(photo, data=data), photo.data, levels


def _process(data: bytes, *, keeps_hdr: bool, folder: str, max_bytes: int = 2**20) -> bytes:
    source, target = Path(folder, "source"), Path(folder, "target")
    source.write_bytes(data)
    process_file(source, target, Limits(keeps_hdr=keeps_hdr, max_bytes=max_bytes))
    return target.read_bytes()


def _compare(photo: Picture, plain: bytes, levels: Image.Image, max_bytes: int) -> float:
    """Print the row of a photo; return the SSIMULACRA2 that its map costs."""
    with tempfile.TemporaryDirectory() as folder:
        kept, dropped = (
            _process(photo.data, keeps_hdr=keeps, folder=folder, max_bytes=max_bytes) for keeps in (True, False)
        )
    scores = score(plain, kept), score(plain, dropped)
    second = kept[kept.rindex(b"\xff\xd8\xff") :] if mpf.SIGNATURE in kept else b""
    error = f"{_error(second, levels, plain):.1%}" if second else "dropped"
    cells = f"{scores[0]:.1f} | {scores[1]:.1f} | {scores[1] - scores[0]:+.2f} | {len(second):,} | {error}"
    print(f"| {photo.name} | {max_bytes:,} | {cells} |", flush=True)
    return scores[1] - scores[0]


def _error(second: bytes, levels: Image.Image, plain: bytes) -> float:
    """The mean error of light that the result's map makes, as a share of the light."""
    with Image.open(io.BytesIO(plain)) as photo:
        levels.info["exif"] = photo.getexif().tobytes()
    upright = ImageOps.exif_transpose(levels)
    with Image.open(io.BytesIO(second)) as written:
        seen = written.resize(upright.size, Image.Resampling.BILINEAR)
    stops = _STOPS * (_share(seen) - _share(upright))
    return float(np.abs(2**stops - 1).mean())


def _share(levels: Image.Image) -> NDArray[np.float32]:
    return np.asarray(levels.convert("L"), dtype=np.float32) / 255


if __name__ == "__main__":
    main()

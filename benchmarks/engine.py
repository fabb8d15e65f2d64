"""Speed, memory and quality of `dream.imaging` beside the documented algorithm, plain Pillow and libvips.

    python -m benchmarks.engine --photos FOLDER [--rounds 7] [--only speed exact png memory quality budget]

A ratio compares medians of interleaved rounds on one core, with a process for each contender. Larger JPEGs consist of
the photos side by side.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.opponents import decoded, documented, documented_to, has_vips, thumbnail_to, vips_to
from benchmarks.pictures import Picture, as_png, enlarged, photos, progressive, screenshot, tiled
from benchmarks.rounds import medians_ms, pin
from dream.imaging import Limits, process_image
from dream.imaging.decode import decode, open_image
from dream.imaging.encode import JPEG
from dream.imaging.transform import prepare

__all__ = ["main"]

_Contender = Callable[[bytes], object]

_EDGE_PX, _QUALITY = 1920, 85
_BUDGETS = (2**20, 300_000, 100_000, 20_000)


def main() -> None:
    """Measure, and print a table for each subject."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="FOLDER", help="JPEG photos of 8 to 20 megapixels"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS), metavar="PART")
    options = parser.parse_args()
    found = photos(options.photos)
    if not found:
        parser.error(f"no JPEG is in {options.photos}")
    print(f"On core {pin()}; {options.rounds} rounds. {len(found)} photos: {', '.join(each.name for each in found)}.")
    for part in options.only:
        print(f"\n### {part}\n", flush=True)
        _PARTS[part](found, options.rounds)


def _speed(found: list[Picture], rounds: int) -> None:
    """Measure `process_image` with default settings."""
    contenders: dict[str, _Contender] = {"engine": _engine, "documented": documented}
    _compare(_of(found, 11, 17), rounds, contenders)
    _compare([tiled(photo, 2, 2, 13_000_000) for photo in _of(found, 11, 13)], rounds, contenders)
    _compare([photo for photo in found if photo.megapixels < 11], rounds, contenders)


def _exact(found: list[Picture], rounds: int) -> None:
    """Measure the way to exactly 1920 pixels at quality 85, without a search."""
    twelve = _of(found, 11, 13)
    larger = [tiled(photo, 2, down, size) for photo in twelve for down, size in ((1, 8_000_000), (2, 13_000_000))]
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, _Contender] = {
            "engine": partial(_exactly, target=Path(folder, "out")),
            "documented": partial(documented_to, edge_px=_EDGE_PX, quality=_QUALITY),
            "Pillow thumbnail": partial(thumbnail_to, edge_px=_EDGE_PX, quality=_QUALITY),
        }
        if has_vips():
            contenders["libvips"] = partial(vips_to, edge_px=_EDGE_PX, quality=_QUALITY)
        else:
            print("pyvips is not installed (`make .venv/bench.stamp`): libvips was not measured.\n")
        _compare(_of(found, 11, 17), rounds, contenders)
        _compare(larger, rounds, contenders)


def _png(found: list[Picture], rounds: int) -> None:
    """Measure PNGs, whose decoding cannot be reduced: `process_image`, and the decoding alone."""
    pictures = [*(as_png(photo) for photo in _of(found, 11, 13)), screenshot(found[0])]
    _compare(pictures, rounds, {"engine": _engine, "documented": documented, "decoding alone": decoded})


def _memory(found: list[Picture], _rounds: int) -> None:
    """Measure the peak of a process of the pool over the same process when idle."""
    from benchmarks.memory import peak_mb

    twelve = _of(found, 11, 13)
    larger = [tiled(photo, 2, 2, 13_000_000) for photo in twelve]
    odd = [enlarged(photo, 5761, 3841) for photo in twelve]
    pictures = [*found, *larger, *odd, progressive(twelve[0]), progressive(larger[0]), as_png(twelve[0])]
    print("| picture | pixels | peak over idle |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for picture in pictures:
            peak = peak_mb(Path(folder), picture.data, process_image(found[0].data, "small", 50_000))
            print(f"| {picture.name} | {picture.megapixels:.0f} MP | {peak:.0f} MB |", flush=True)


def _quality(found: list[Picture], _rounds: int) -> None:
    """Measure SSIMULACRA2 at 1 MiB with default settings."""
    try:
        from benchmarks.quality import score
    except ImportError as error:
        print(f"{error.name} is not installed (`make .venv/bench.stamp`): quality was not measured.")
        return
    scores: dict[str, list[float]] = {"engine": [], "documented": []}
    print("| picture | engine | bytes | documented | bytes |\n| --- | --- | --- | --- | --- |")
    for picture in [*found, *(tiled(photo, 2, 2, 13_000_000) for photo in _of(found, 11, 13))]:
        ours, theirs = process_image(picture.data, "photo"), documented(picture.data)
        scores["engine"].append(score(picture.data, ours))
        scores["documented"].append(score(picture.data, theirs, upright=False))
        shown = f"{scores['engine'][-1]:.1f} | {len(ours):,} | {scores['documented'][-1]:.1f} | {len(theirs):,}"
        print(f"| {picture.name} | {shown} |", flush=True)
    medians = {name: statistics.median(values) for name, values in scores.items()}
    print(f"| median | {medians['engine']:.1f} | | {medians['documented']:.1f} | |")
    print(f"| lowest | {min(scores['engine']):.1f} | | {min(scores['documented']):.1f} | |")


def _budget(found: list[Picture], _rounds: int) -> None:
    """Count results over their byte budget."""
    over, shares = 0, []
    for picture in [*found, screenshot(found[0])]:
        for max_bytes in _BUDGETS:
            share = len(process_image(picture.data, "picture", max_bytes)) / max_bytes
            over += share > 1
            shares.append(share)
    print(
        f"{over} of {len(shares)} results are over their budget ({', '.join(f'{each:,}' for each in _BUDGETS)} bytes)."
    )
    print(f"The fullest uses {max(shares):.1%} of it.")


def _engine(data: bytes) -> bytes:
    return process_image(data, "picture")


def _exactly(data: bytes, target: Path) -> None:
    limits = Limits(max_edge_px=_EDGE_PX, least_edge_share=1.0)
    JPEG.save(prepare(decode(open_image(io.BytesIO(data), limits), limits)), target, _QUALITY)


def _compare(pictures: list[Picture], rounds: int, contenders: dict[str, _Contender]) -> None:
    """Print a row for each picture: the time of `dream.imaging`, the others' times and ratios; then the medians."""
    if not pictures:
        return
    others = [name for name in contenders if name != "engine"]
    ratios: list[dict[str, float]] = []
    print(f"| picture | pixels | engine | {' | '.join(others)} |\n| --- | --- | --- |{' --- |' * len(others)}")
    for picture in pictures:
        taken = medians_ms({name: partial(run, picture.data) for name, run in contenders.items()}, rounds)
        ratios.append({name: taken[name] / taken["engine"] for name in others})
        cells = [f"{taken[name]:.0f} ms ({taken[name] / taken['engine']:.2f}×)" for name in others]
        row = (picture.name, f"{picture.megapixels:.0f} MP", f"{taken['engine']:.0f} ms", *cells)
        print(f"| {' | '.join(row)} |", flush=True)
    medians = (f"{statistics.median(ratio[name] for ratio in ratios):.2f}×" for name in others)
    print(f"| median | | | {' | '.join(medians)} |\n")


def _of(found: list[Picture], least_mp: float, most_mp: float) -> list[Picture]:
    """The pictures in this range of megapixels, or all pictures if none is."""
    return [photo for photo in found if least_mp <= photo.megapixels <= most_mp] or found


_PARTS: dict[str, Callable[[list[Picture], int], None]] = {
    "speed": _speed,
    "exact": _exact,
    "png": _png,
    "memory": _memory,
    "quality": _quality,
    "budget": _budget,
}

if __name__ == "__main__":
    main()

"""Settings of WebP and AVIF for variants: bytes and processor time at the SSIMULACRA2 of the present settings.

    python -m benchmarks.formats --photos FOLDER [--edges 320 640 1280 1920]

A setting is encoded at three qualities. A line through two neighbours gives its bytes and its time at the SSIMULACRA2
of the present setting. A ratio is the setting's divided by the present one's: the median over photos and edges.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.pictures import photos
from benchmarks.quality import score
from dream.imaging.encode import AVIF, JPEG, WEBP, Kind

__all__ = ["main"]

_Options = Mapping[str, object]

_WEBP: dict[str, _Options] = {f"WebP, method {method}": {"method": method} for method in range(7)}
_AVIF: dict[str, _Options] = {
    **{f"AVIF, speed {speed}": {"speed": speed} for speed in range(6, 11)},
    "AVIF, speed 9, 4:4:4": {"subsampling": "4:4:4"},
    "AVIF, speed 9, tune ssim": {"advanced": {"tune": "ssim"}},
    "AVIF, speed 9, tune iq": {"advanced": {"tune": "iq"}},
}
_GROUPS: list[tuple[str, Kind, _Options, dict[str, _Options]]] = [
    ("WEBP", WEBP, {"alpha_quality": 100, "method": 2}, _WEBP),
    ("AVIF", AVIF, {"subsampling": "4:2:0", "speed": 9, "max_threads": 1}, _AVIF),
]
#: Qualities around the present one.
_AROUND = (-6, 0, 6)
_ROUNDS = 3


class _Point(NamedTuple):
    """One file: its SSIMULACRA2, its bytes and the time of its encoding."""

    score: float
    size_bytes: int
    time_s: float


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--edges", type=int, nargs="+", default=[320, 640, 1280, 1920])
    options = parser.parse_args()
    pictures = []
    for photo in photos(options.photos):
        for edge_px in options.edges:
            image = photo.pixels().convert("RGB")
            image.thumbnail((edge_px, edge_px), Image.Resampling.LANCZOS, reducing_gap=None)
            pictures.append(image)
    if not pictures:
        parser.error(f"no JPEG is in {options.photos}")
    print("| setting | bytes | processor time |\n| --- | --- | --- |", flush=True)
    presents: dict[str, list[float]] = {"JPEG": [_present(image, JPEG).score for image in pictures]}
    for name, kind, present, settings in _GROUPS:
        aims = [_point(image, name, kind.qualities.highest, present) for image in pictures]
        presents[name] = [aim.score for aim in aims]
        for setting, changes in settings.items():
            pairs = [
                _ratios(image, name, kind.qualities.highest, {**present, **changes}, aim)
                for image, aim in zip(pictures, aims, strict=True)
            ]
            size, taken = (statistics.median(each) for each in zip(*pairs, strict=True))
            print(f"| {setting} | {size:.3f} | {taken:.2f} |", flush=True)
    print("\n| format | SSIMULACRA2: median | range |\n| --- | --- | --- |")
    for name, scores in presents.items():
        print(f"| {name} | {statistics.median(scores):.1f} | {min(scores):.1f} … {max(scores):.1f} |")


def _ratios(image: Image.Image, name: str, quality: int, options: _Options, aim: _Point) -> tuple[float, float]:
    """Bytes and time of a setting at the aim's score, as shares of the aim's."""
    points = [_point(image, name, min(100, quality + each), options) for each in _AROUND]
    low, high = points[:2] if aim.score < points[1].score else points[1:]
    place = (aim.score - low.score) / (high.score - low.score)
    size = math.log(low.size_bytes) + place * math.log(high.size_bytes / low.size_bytes)
    taken_s = low.time_s + place * (high.time_s - low.time_s)
    return math.exp(size) / aim.size_bytes, taken_s / aim.time_s


def _present(image: Image.Image, kind: Kind) -> _Point:
    out = io.BytesIO()
    kind.save(image, out, kind.qualities.highest)
    return _Point(_score(image, out.getvalue()), out.tell(), 0.0)


def _point(image: Image.Image, name: str, quality: int, options: _Options) -> _Point:
    times_s = []
    for _ in range(_ROUNDS):
        out = io.BytesIO()
        began_s = time.process_time()
        image.save(out, name, quality=quality, **options)
        times_s.append(time.process_time() - began_s)
    return _Point(_score(image, out.getvalue()), out.tell(), min(times_s))


def _score(image: Image.Image, result: bytes) -> float:
    source = io.BytesIO()
    image.save(source, "PNG", compress_level=1)
    return score(source.getvalue(), result)


if __name__ == "__main__":
    main()

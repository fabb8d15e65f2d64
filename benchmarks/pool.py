"""What the pool costs a picture beside the work itself: hand over, limits, paths, result.

    python -m benchmarks.pool --photos FOLDER [--rounds 30]

A file that is refused by its first bytes gives the way there and back alone. A photo is timed through the pool and
directly in this process, in turns. A crowd of photos on all children shows what is left when all cores are busy.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.pictures import photo_paths
from dream.errors import ImageRejected
from dream.imaging import Limits, process_file
from dream.imaging.pool import Pool
from dream.settings import load

__all__ = ["main"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pool", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="JPEG photos")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    photos = photo_paths(options.photos)
    settings = load()
    limits, processes = Limits.of(settings), settings.pool_processes
    pool = Pool(limits, processes, settings.image_time_limit_s, settings.child_memory_bytes)
    pool.start()
    try:
        with tempfile.TemporaryDirectory(prefix="dream-bench-") as folder:
            _measure(pool, limits, processes, photos, Path(folder), options.rounds)
    finally:
        pool.stop()


def _measure(pool: Pool, limits: Limits, processes: int, photos: list[Path], folder: Path, rounds: int) -> None:
    """The three figures, a line each."""
    nothing = folder / "nothing"
    nothing.write_bytes(b"no picture")
    target = folder / "target"
    round_trips = [_timed_ms(lambda: _through(pool, nothing, target)) for _ in range(20 * rounds)]
    print(
        f"there and back: median {statistics.median(round_trips):.2f} ms, 99% below {_percentile(round_trips):.2f} ms"
    )
    pooled, direct = [], []
    for number in range(rounds):
        photo = photos[number % len(photos)]
        pooled.append(_timed_ms(lambda photo=photo: _through(pool, photo, target)))  # type: ignore[misc]
        direct.append(_timed_ms(lambda photo=photo: process_file(photo, target, limits)))  # type: ignore[misc]
    differences = [one - other for one, other in zip(pooled, direct, strict=True)]
    print(
        f"one photo: {statistics.median(pooled):.1f} ms through the pool, {statistics.median(direct):.1f} ms directly; "
        f"median of the differences {statistics.median(differences):+.2f} ms"
    )
    crowd = [photos[number % len(photos)] for number in range(rounds * processes)]
    work_ms = sum(_timed_ms(lambda photo=photo: process_file(photo, target, limits)) for photo in crowd)  # type: ignore[misc]
    wall_ms = _timed_ms(lambda: _crowd_through(pool, crowd, folder))
    print(
        f"{len(crowd)} photos on {processes} children: {wall_ms / len(crowd) * processes:.1f} ms of a core each, "
        f"{work_ms / len(crowd):.1f} ms alone"
    )


def _through(pool: Pool, source: Path, target: Path) -> None:
    """One file, whatever becomes of it."""
    with contextlib.suppress(ImageRejected):
        pool.submit(source, target).wait(lambda: None)


def _crowd_through(pool: Pool, sources: list[Path], folder: Path) -> None:
    """Many at once, as a batch is handed over."""
    jobs = [pool.submit(source, folder / f"{number}.out") for number, source in enumerate(sources)]
    for job in jobs:
        job.wait(lambda: None)


def _timed_ms(work: object) -> float:
    """The wall-clock time of a call."""
    assert callable(work)
    started_s = time.perf_counter()
    work()
    return (time.perf_counter() - started_s) * 1e3


def _percentile(values: list[float]) -> float:
    """What 99% of them stay below."""
    return statistics.quantiles(values, n=100)[-1]


if __name__ == "__main__":
    main()

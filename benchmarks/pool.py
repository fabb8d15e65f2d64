"""Cost of the pool for a picture beside the work itself: transfer, limits, paths, result.

    python -m benchmarks.pool --photos FOLDER [--rounds 30]

A file that is rejected by its first bytes measures only the way there and back. The benchmark times a photo through the
pool and directly in this process, in turns. Many photos on all children show the cost when all cores are busy.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.pictures import photo_paths
from dream.errors import ImageRejected
from dream.imaging import Limits, process_file
from dream.imaging.child import Renewal
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
    """Print the figures, a line each."""
    nothing = folder / "nothing"
    nothing.write_bytes(b"no picture")
    target = folder / "target"
    round_trips = [_timed_ms(lambda: _through(pool, nothing, target)) for _ in range(20 * rounds)]
    print(
        f"there and back: median {statistics.median(round_trips):.2f} ms, 99% below {_percentile(round_trips):.2f} ms"
    )
    print(f"renewal of a child: {_renewal_ms(nothing, target):.0f} ms of processor time")
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


def _renewal_ms(nothing: Path, target: Path, renewals: int = 10) -> float:
    """Processor time of a child from its start to its end: a pool of one child, renewed after each file."""
    used_s = []
    for files in (1, 1 + renewals):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        pool = Pool(Limits(), 1, 60, 4 * 2**30, Renewal(pictures=1))
        pool.start()
        for _ in range(files):
            _through(pool, nothing, target)
        pool.stop()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return (used_s[1] - used_s[0]) / renewals * 1e3


def _through(pool: Pool, source: Path, target: Path) -> None:
    """Process one file; ignore a rejection."""
    with contextlib.suppress(ImageRejected):
        pool.submit(source, target).wait(lambda: None)


def _crowd_through(pool: Pool, sources: list[Path], folder: Path) -> None:
    """Process many files at once, like a batch."""
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
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[-1]


if __name__ == "__main__":
    main()

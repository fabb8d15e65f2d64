"""Run every file of a folder through the pool, like an upload, and print each outcome.

    python -m benchmarks.corpus FOLDER [--processes 2] [--verbose]

It is for the test suites of decoders, collections of broken files and similar folders. A file may end as a picture that
opens again, or as a reason for its owner. The benchmark lists every other outcome (a child that died, a time limit, a
stack trace), and then ends with exit code 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dream.errors import DreamError, ImageRejected
from dream.imaging import Limits
from dream.imaging.pool import Pool
from dream.settings import load

__all__ = ["main"]


class Ending(NamedTuple):
    """The outcome of a file: `picture`, `refused` or `fault`, its reason, and its time."""

    path: Path
    kind: str
    words: str
    took_s: float


def main() -> int:
    """Run the command; return 1 if a file ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=2, help="children of the pool")
    parser.add_argument("--verbose", action="store_true", help="a line for each file")
    options = parser.parse_args()
    endings = []
    for ending in run(sorted(path for path in options.folder.rglob("*") if path.is_file()), options.processes):
        endings.append(ending)
        if options.verbose or ending.kind == "fault":
            print(f"{ending.kind:8} {ending.took_s:6.2f} s  {ending.path.name}: {ending.words}", flush=True)
    report(endings)
    return any(ending.kind == "fault" for ending in endings)


def run(paths: list[Path], processes: int) -> Iterator[Ending]:
    """Process each file, some at a time; yield outcomes in the order of `paths`."""
    settings = load()
    pool = Pool(Limits.of(settings), processes, settings.image_time_limit_s, settings.child_memory_bytes)
    pool.start()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dream-corpus-") as folder,
            ThreadPoolExecutor(processes + 1) as threads,
        ):
            yield from threads.map(lambda path: end_of(pool, path, Path(folder)), paths)
            print(f"peak memory of a child that is still there: {peak_mib():.0f} MiB")
    finally:
        pool.stop()


def end_of(pool: Pool, path: Path, folder: Path) -> Ending:
    """Process one file, open its result, and return the outcome."""
    target = folder / f"{path.stem}-{id(path)}"
    started_s = time.monotonic()
    try:
        processed = pool.submit(path, target).wait(lambda: None, interval_s=1)
    except ImageRejected as error:
        return Ending(path, "refused", str(error), time.monotonic() - started_s)
    except DreamError as error:
        return Ending(path, "fault", f"{type(error).__name__}: {error}", time.monotonic() - started_s)
    took_s = time.monotonic() - started_s
    with Image.open(target) as picture:
        picture.load()
        words = f"{picture.format} {processed.width_px} × {processed.height_px}, {processed.size_bytes} bytes"
        is_as_said = picture.size == (processed.width_px, processed.height_px)
    for made in folder.glob(f"{target.name}*"):
        made.unlink()
    return Ending(path, "picture" if is_as_said else "fault", words, took_s)


def peak_mib() -> float:
    """Peak resident memory of all children."""
    peaks = [0]
    for child in multiprocessing.active_children():
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peaks.append(int(line.split()[1]))
    return max(peaks) / 1024


def report(endings: list[Ending]) -> None:
    """Print counts, reasons, and the slowest files."""
    print(", ".join(f"{count} {kind}" for kind, count in Counter(ending.kind for ending in endings).most_common()))
    for words, count in Counter(ending.words for ending in endings if ending.kind == "refused").most_common(20):
        print(f"{count:6} × {words}")
    for ending in sorted(endings, key=lambda ending: ending.took_s)[:-6:-1]:
        print(f"{ending.took_s:6.2f} s  {ending.path.name}: {ending.words}")


if __name__ == "__main__":
    sys.exit(main())

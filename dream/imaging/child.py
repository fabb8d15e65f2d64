"""A process of the pool: its start, its limits, the calls that it runs, and its end.

Such a process dies with its parent, ignores SIGTERM and Ctrl-C, and has limits on memory, time and processor time. It
ends by itself when it is due for renewal. It answers in plain data only: an exception that cannot be unpickled would
break the pool.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import random
import resource
import signal
import time
import traceback
import warnings
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TypedDict

from dream import fault_points
from dream.errors import ImageRejected
from dream.imaging import Limits, Processed, process_file
from dream.work.tether import die_with

__all__ = ["Children", "Renewal", "Report", "prepare_process", "process_id", "run"]

#: A pipe takes up to 4,096 bytes in one piece. Reports stay below that, so that a death never leaves half a report.
_MAX_TRACE_CHARACTERS = 2_000


class _Child(SpawnProcess):
    """A child ignores SIGTERM, so its end must be a SIGKILL."""

    def terminate(self) -> None:
        self.kill()


class Children(SpawnContext):
    """Starts children, never by fork: a fork would copy locks that the parent's threads have taken."""

    Process = _Child


class Renewal(int):
    """The end of a child's life after so many pictures, or when it holds so much memory.

    It stands in the place of the number that pebble compares before it takes a job: `jobs done < Renewal`. So a child
    ends only between two pictures. Each child has a random share of the limits, from 75 to 100%: children that started
    together end one by one.

    Parameters:
      pictures: limit of pictures; 0 for none.
      rss_bytes: limit of resident memory; 0 for none. Only Linux tells it.
    """

    def __new__(cls, pictures: int = 0, rss_bytes: int = 0) -> Renewal:
        renewal = super().__new__(cls, bool(pictures or rss_bytes))  # pebble asks nothing of a zero
        renewal._pictures, renewal._rss_bytes = pictures, rss_bytes
        return renewal

    _pictures: int
    _rss_bytes: int
    _share: float | None = None

    def __gt__(self, done: int) -> bool:
        """Whether a child that has done so many jobs takes another."""
        if self._share is None:  # in the child: pebble copies this object before it compares it
            self._share = random.uniform(0.75, 1.0)  # noqa: S311
        if self._pictures and done >= max(1, round(self._pictures * self._share)):
            return False
        return not self._rss_bytes or done == 0 or _rss_bytes() < self._rss_bytes * self._share


def _rss_bytes() -> int:
    """Resident memory of this process; 0 where /proc does not tell it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


class Report(TypedDict, total=False):
    """The end of a job: its duration, and exactly one of the other fields.

    took_s: seconds of work, without the wait for this process.
    processed: the result.
    rejected, code: the reason of a refusal, for the owner and for programs.
    out_of_memory: the picture needed more memory than the process may have.
    failed: the end of the traceback of any other error.
    """

    took_s: float
    processed: Processed
    rejected: str
    code: str
    out_of_memory: bool
    failed: str


def prepare_process(parent_pid: int, memory_bytes: int, niceness: int, fault: str | None) -> None:
    """Run once, before the first job: tie, limit and warm up this process."""
    die_with(parent_pid)
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(niceness)
    fault_points.arm(fault)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a service; the parent decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process and not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reserves address space for a thread on each core
    for name in ("dream.imaging.pipeline", "simplejpeg"):
        importlib.import_module(name)
    _reserve_openblas_memory()
    warnings.simplefilter("ignore", UserWarning)  # Pillow's warnings about odd metadata


def _reserve_openblas_memory() -> None:
    """Make OpenBLAS reserve its 40 MB of address space now.

    It does so at the first matrix product, and ends the process if it fails (seen on AMD processors).
    """
    import numpy

    square = numpy.ones((256, 256))
    square @ square


def process_id() -> int:
    """The id of this process, after a short wait, so that one process does not answer for all."""
    time.sleep(0.05)
    return os.getpid()


def run(source: str, target: str, limits: Limits, time_limit_s: float, cpu_s: float) -> Report:
    """Process one picture. Every error becomes a part of the report.

    Parameters:
      source, target: paths.
      limits: its limits.
      time_limit_s, cpu_s: time and processor time after which the kernel ends this process. Neither follows the clock
        of the day, which may be set. The time limit should come first.
    """
    signal.setitimer(signal.ITIMER_REAL, time_limit_s)
    began = time.perf_counter()
    try:
        report = _outcome(Path(source), Path(target), limits, cpu_s)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # a death while pebble sends the report would break the pool
    return {**report, "took_s": time.perf_counter() - began}


def _outcome(source: Path, target: Path, limits: Limits, cpu_s: float) -> Report:
    try:
        _allow_cpu(cpu_s)
        _refuse_bombs(limits)
        return {"processed": process_file(source, target, limits)}
    except ImageRejected as error:
        return {"rejected": str(error), "code": error.code}
    except MemoryError:
        return {"out_of_memory": True}
    except BaseException:  # noqa: BLE001 (the edge of the process; a panic of a library in Rust is no `Exception`)
        return {"failed": traceback.format_exc()[-_MAX_TRACE_CHARACTERS:]}


def _allow_cpu(cpu_s: float) -> None:
    """Raise the limit of processor time by the time of one job: the kernel counts since the process's start."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + cpu_s) + 1
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _refuse_bombs(limits: Limits) -> None:
    """Set Pillow's own limit of pixels, which also finds pictures that are larger than their headers say."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = max(limits.max_pixels, limits.max_jpeg_pixels)
    warnings.simplefilter("error", Image.DecompressionBombWarning)

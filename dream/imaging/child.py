"""What runs inside a process of the pool, and how one is started and ended.

Such a process dies with its parent, leaves signals to it, and has limits on memory and processor time. It answers in
plain data only: an exception that cannot be unpickled would break the pool.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
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
from dream.tether import die_with

__all__ = ["Children", "Report", "prepare_process", "process_id", "run"]

#: Reports stay below what a pipe takes in one piece (4,096 bytes), so that a death never leaves half of one behind.
_MAX_TRACE_CHARACTERS = 2_000


class _Child(SpawnProcess):
    """A child ignores SIGTERM, so that to end it is to kill it."""

    def terminate(self) -> None:
        self.kill()


class Children(SpawnContext):
    """Starts children; never by fork, which would copy the locks of the parent's threads as they are."""

    Process = _Child


class Report(TypedDict, total=False):
    """How a job ended; one of these is there.

    processed: what was made of it.
    rejected: why the picture is refused, for its owner.
    out_of_memory: the picture needed more memory than the process may have.
    failed: the end of the trace of anything else.
    """

    processed: Processed
    rejected: str
    out_of_memory: bool
    failed: str


def prepare_process(parent_pid: int, memory_bytes: int, fault: str | None) -> None:
    """Run once, before the first job: tie, limit and warm up this process."""
    die_with(parent_pid)
    fault_points.arm(fault)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a service; the parent decides
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):  # where memory runs out, the kernel takes this process and not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reserves address space for a thread on each core
    importlib.import_module("dream.imaging.pipeline")
    warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on odd metadata


def process_id() -> int:
    """Who runs this; held for a moment, so that one process does not answer for all."""
    time.sleep(0.05)
    return os.getpid()


def run(source: str, target: str, limits: Limits, cpu_s: float) -> Report:
    """Process one picture. Raises nothing.

    Parameters:
      source, target: paths.
      limits: its bounds.
      cpu_s: processor time it may take before the kernel ends this process; the pool's time limit should come first.
    """
    try:
        _allow_cpu(cpu_s)
        _refuse_bombs(limits)
        return {"processed": process_file(Path(source), Path(target), limits)}
    except ImageRejected as error:
        return {"rejected": str(error)}
    except MemoryError:
        return {"out_of_memory": True}
    except BaseException:  # noqa: BLE001 (the edge of the process; a panic of a library in Rust is no `Exception`)
        return {"failed": traceback.format_exc()[-_MAX_TRACE_CHARACTERS:]}


def _allow_cpu(cpu_s: float) -> None:
    """Raise the limit of processor time, which counts the process's whole life, by one job's."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + cpu_s) + 1
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _refuse_bombs(limits: Limits) -> None:
    """Make Pillow's own check, which meets what no header has said, an error above what is accepted."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = max(limits.max_pixels, limits.max_jpeg_pixels)
    warnings.simplefilter("error", Image.DecompressionBombWarning)

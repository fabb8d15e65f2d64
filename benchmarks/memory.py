"""How much memory a picture takes: the peak of a real process of the pool, over the same process when idle."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

from dream.imaging import Limits
from dream.imaging.pool import Pool

__all__ = ["peak_mb"]


def peak_mb(folder: Path, data: bytes, warm_up: bytes) -> float:
    """Peak of resident memory while a picture is processed, less what the process has when idle, in millions of bytes.

    Parameters:
      folder: for the files.
      data: the picture.
      warm_up: one that is processed before, so that the process is one that has worked.
    """
    source, small, target = folder / "source", folder / "small", folder / "target"
    source.write_bytes(data)
    small.write_bytes(warm_up)
    pool = Pool(Limits(), processes=1, time_limit_s=60, child_memory_bytes=4 * 2**30)
    pool.start()
    try:
        (child,) = multiprocessing.active_children()
        pool.submit(small, target).wait(lambda: None)
        idle = _status(child.pid, "VmRSS")
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # the peak is counted from here
        pool.submit(source, target).wait(lambda: None)
        return (_status(child.pid, "VmHWM") - idle) / 1e6
    finally:
        pool.stop()


def _status(pid: int | None, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024

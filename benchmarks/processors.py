"""Processor time of this process and all processes below it, by kind (source: proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CHILDREN", "WORKER", "cpu_by_part"]

CHILDREN, WORKER = "children of the pool", "worker"

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/<pid>/stat behind the name: the parent, and ticks in user and in kernel mode.
_PARENT, _USER, _KERNEL = 1, 11, 12


def cpu_by_part() -> dict[str, float]:
    """Processor seconds so far, for each kind of process."""
    stats = {int(path.name): _stat(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    family = {os.getpid()}
    while found := {pid for pid, stat in stats.items() if stat and int(stat[_PARENT]) in family} - family:
        family |= found
    taken: dict[str, float] = {}
    for pid in family:
        ticks = sum(int(stats[pid][field]) for field in (_USER, _KERNEL))
        taken[_part(pid)] = taken.get(_part(pid), 0.0) + ticks / _TICKS_PER_S
    return taken


def _stat(process: Path) -> list[str]:
    """The fields behind the name; none if the process has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _part(pid: int) -> str:
    """The kind of a process, by its command line."""
    if pid == os.getpid():
        return "web layer"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    if any("spawn_main" in word for word in words):
        return CHILDREN
    return WORKER if "worker" in words else Path(words[0]).name

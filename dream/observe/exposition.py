"""Serve the metrics of a service by HTTP, summed over its processes.

Processes that name the same port share a folder, whose files Prometheus's client maps into memory:

    worker ── slot 0 ─► counter_0.db, histogram_0.db, gauge_…_0.db ─┐
    worker ── slot 1 ─► counter_1.db, …                             ├─► GET /metrics, from one of the processes
    scheduler ─ slot 2 ─► …                                         ┘

A process has its slot by a lock, which the kernel releases when the process dies. Its successor takes the slot and
counts on from there, so that no counter falls, and the gauges of the dead process are removed. The listener is elected
by a lock, too. Another catalogue (of another release) begins with new files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import stat
import struct
import tempfile
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from dream.log import get_logger
from dream.observe import metrics
from dream.observe.watching import watch_steps
from dream.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["Listening", "Series", "figures", "start"]

log = get_logger(__name__)

#: The files of a process, as Prometheus's client names them, and the size that each has from the start.
_FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemostrecent")
_FILE_BYTES = 1 << 20
#: Seconds between two tries to listen on a port that another program has.
_TRY_AGAIN_S = 5.0


#: The folder of this process, once metrics are on.
_joined: list[_Folder] = []


class Series(TypedDict):
    """One series of a counter or a histogram.

    Parameters:
      value: of a counter; of a histogram the sum of its durations in seconds.
      buckets: of a histogram, pairs (upper bound in seconds or None, number of durations up to it).
    """

    labels: dict[str, str]
    value: float
    buckets: list[tuple[float | None, float]]


class Listening(Protocol):
    """The settings of the listener."""

    @property
    def metrics_host(self) -> str: ...
    @property
    def metrics_port(self) -> int: ...
    @property
    def metrics_dir(self) -> str | None: ...


def start(settings: Listening, part: str) -> None:
    """Switch metrics on if `DREAM_METRICS_PORT` is set. Trouble with them is logged, and never ends the process.

    Call it once, after all forks. Metrics of callers' tasks that Prometheus's client has are served, too, if they are
    created after this call.

    Parameters:
      part: one of `metrics.PARTS`.
    """
    if not settings.metrics_port:
        return
    try:
        folder = _Folder(Path(settings.metrics_dir or tempfile.gettempdir()), settings.metrics_port)
        folder.join()
    except OSError as error:
        _cannot(settings, error, "name a folder in DREAM_METRICS_DIR in which this process may write")
        return
    # Prometheus's client reads the variable when it is imported, and when it opens a file.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)
    from prometheus_client import CollectorRegistry, values

    slot = folder.slot
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
    _joined[:] = [folder]
    # The collector of the files is in a registry of its own, else each metric would be served twice.
    metrics.switch_on(part, CollectorRegistry())
    watch_steps()
    threading.Thread(target=_serve, args=(settings, folder), name="metrics", daemon=True).start()


def figures(names: Collection[str]) -> dict[str, list[Series]]:
    """The series of these counters and histograms as this process has counted them; none if metrics are off.

    They are those that `/metrics` adds up, from the same files.
    """
    if not _joined:
        return {}
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = _joined[0]
    files = [str(folder.path / f"{kind}_{folder.slot}.db") for kind in ("counter", "histogram")]
    found: dict[str, list[Series]] = {}
    for family in MultiProcessCollector.merge(files):  # type: ignore[no-untyped-call]
        name = family.name + ("_total" if family.type == "counter" else "")
        if name in names:
            found[name] = _series(family.samples)
    return found


def _series(samples: Sequence[Any]) -> list[Series]:
    """The samples of one metric, those of a histogram by its labels."""
    by_labels: dict[tuple[tuple[str, str], ...], Series] = {}
    for sample in samples:
        labels = {key: value for key, value in sample.labels.items() if key != "le"}
        series = by_labels.setdefault(tuple(labels.items()), Series(labels=labels, value=0.0, buckets=[]))
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            series["buckets"].append((None if math.isinf(bound) else bound, sample.value))
        elif not sample.name.endswith("_count"):
            series["value"] = sample.value
    return list(by_labels.values())


def _serve(settings: Listening, folder: _Folder) -> None:
    """Serve, once no sibling does."""
    from prometheus_client import CollectorRegistry, start_http_server

    folder.wait_for_my_turn()
    registry = CollectorRegistry()
    registry.register(_Files(folder))
    is_told = False
    while True:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as error:
            if not is_told:
                _cannot(settings, error, "set DREAM_METRICS_PORT of each service to a free port")
            is_told = True
            threading.Event().wait(_TRY_AGAIN_S)
        else:
            log.info("metrics_served", host=settings.metrics_host, port=settings.metrics_port)
            return


def _cannot(settings: Listening, error: OSError, remedy: str) -> None:
    log.warning(
        "metrics_not_served",
        host=settings.metrics_host,
        port=settings.metrics_port,
        error=error.strerror or str(error),
        do=remedy,
    )


class _Files:
    """A collector (of Prometheus's client) over the files of the processes."""

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.multiprocess import MultiProcessCollector

        self._folder.forget_dead()
        files: Any = MultiProcessCollector(None, str(self._folder.path))  # type: ignore[no-untyped-call]
        yield from files.collect()


class _Folder:
    """The files of the processes that name one port.

    Parameters:
      parent: the folder in which it is.
      port: the port.

    Raises:
      OSError: it cannot be used.
    """

    def __init__(self, parent: Path, port: int) -> None:
        self.path = parent / f"dream-metrics-{os.getuid()}-{port}"
        self.path.mkdir(mode=0o700, exist_ok=True)
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(1, f"{self.path} is not a private folder of this user")
        self.slot = ""
        #: Open as long as this process lives: they hold its locks.
        self._held: list[int] = []
        os.register_at_fork(after_in_child=self._let_go)

    def join(self) -> None:
        """Take a slot; if nobody else is here and the files are of another catalogue, remove them first."""
        life = self._open("life")
        if _try_lock(life) and os.pread(life, 200, 0) != (mine := _catalogue()):
            for file in self.path.glob("*.db"):
                file.unlink()
            os.ftruncate(life, 0)
            os.pwrite(life, mine, 0)
        fcntl.flock(life, fcntl.LOCK_SH)
        self._held.append(life)
        for number in count():
            lock = self._open(f"slot-{number}")
            if _try_lock(lock):
                self._held.append(lock)
                self.slot = str(number)
                self._forget(self.slot)
                self._make_files()
                return
            os.close(lock)

    def _make_files(self) -> None:
        """Allocate the files of the slot, because a write to a mapped file on a full disk would kill this process."""
        for kind in _FILES:
            path = self.path / f"{kind}_{self.slot}.db"
            if path.exists() and not _is_whole(path):
                path.unlink()
            with path.open("ab") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)

    def wait_for_my_turn(self) -> None:
        """Wait until no other process is the listener."""
        listener = self._open("listener")
        fcntl.flock(listener, fcntl.LOCK_EX)
        self._held.append(listener)

    def forget_dead(self) -> None:
        """Remove the gauges of dead processes."""
        for path in self.path.glob("slot-*"):
            lock = self._open(path.name)
            try:
                if _try_lock(lock):
                    self._forget(path.name.removeprefix("slot-"))
            finally:
                os.close(lock)

    def _forget(self, slot: str) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        with suppress(FileNotFoundError):
            mark_process_dead(slot, str(self.path))  # type: ignore[no-untyped-call]

    def _open(self, name: str) -> int:
        return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _let_go(self) -> None:
        """In a forked child: the locks are its parent's."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
        _joined.clear()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Whether Prometheus's client can read the file: a loss of power may have damaged it."""
    from prometheus_client.mmap_dict import MmapedDict

    try:
        used: int = struct.unpack("i", path.read_bytes()[:4])[0]
        for key, *_ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            json.loads(key)
    except (RuntimeError, ValueError, struct.error):
        return False
    return 0 <= used <= path.stat().st_size


def _catalogue() -> bytes:
    """A digest of the catalogue: series of metrics that have changed since must not be added up with new ones."""
    described = [(each.kind, each.name, each.labels, vars(each).get("buckets")) for each in metrics.CATALOGUE.values()]
    return hashlib.sha256(f"{__version__} {described}".encode()).hexdigest().encode()

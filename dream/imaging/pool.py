"""The processes that work on pictures, around pebble's `ProcessPool`.

```
worker thread ── submit ─► Job ── wait(poll) ─► Processed | ImageRejected | ImageTimedOut | ImageCrashed
                            │
keeper thread ── builds and replaces ─► pebble's pool ─► children (child.py)
```

A child may die at any moment without harm to more than the picture it works on. Pebble gives up its whole pool in some
of these moments, for instance when the last idle child dies: then a new one is built and the jobs that it had not
finished start again.

Children die with the *thread* that started them (`dream/tether.py`). So it is one thread of our own that starts them,
or pebble's, which lives as long as its pool; never the caller's.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pebble import ProcessPool

from dream import fault_points
from dream.errors import DreamError, ImageCrashed, WorkerStopping
from dream.imaging import Limits, child
from dream.imaging.job import MOST_STARTS, Job
from dream.log import get_logger

__all__ = ["Pool"]

log = get_logger(__name__)

#: How long children may take to start.
_START_S = 60.0


class Pool:
    """Processes that work on pictures.

    Parameters:
      limits: bounds of each picture.
      processes: how many children.
      time_limit_s: wall-clock time of one picture, from when a child starts on it.
      child_memory_bytes: address space of a child.
    """

    def __init__(self, limits: Limits, processes: int, time_limit_s: float, child_memory_bytes: int) -> None:
        self.time_limit_s = time_limit_s
        self._limits = limits
        self._processes = processes
        self._child_memory_bytes = child_memory_bytes
        self._keeper: ThreadPoolExecutor | None = None
        self._inner: ProcessPool | None = None  # written by the keeper's thread only
        self._stopping = threading.Event()
        self._futures: weakref.WeakSet[Future[child.Report]] = weakref.WeakSet()
        self._futures_lock = threading.Lock()

    def start(self) -> None:
        """Start the children and wait until each is ready, so that the first picture does not wait for imports.

        Raises:
          ImageCrashed: they do not start, for want of memory perhaps.
          DreamError: it was started before.
        """
        if self._keeper is not None:
            raise DreamError("the pool was started before")
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="dream-pool-keeper")
        try:
            inner = self._keeper.submit(self._build).result()
            self._await_children(inner, time.monotonic() + _START_S)
        except BaseException:
            self.stop()
            raise

    def submit(self, source: Path, target: Path, limits: Limits | None = None) -> Job:
        """Have the picture in `source` processed into `target`.

        Parameters:
          limits: its bounds, where they are not those of all.

        Raises:
          WorkerStopping: the pool was stopped.
          ImageCrashed: no child can be started.
          DreamError: the pool was not started.
        """
        return Job(self, source, target, limits or self._limits)

    def stop(self) -> None:
        """End all children, at once and whatever they do; who waits for a job gets `WorkerStopping`."""
        if self._keeper is not None and not self._stopping.is_set():
            self._stopping.set()
            self._keeper.submit(self._close).result()
            self._keeper.shutdown()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def schedule(self, source: Path, target: Path, limits: Limits) -> tuple[ProcessPool, Future[child.Report]]:
        """Hand a job to the children (for `Job`): its future, and the inner pool that it belongs to."""
        cpu_s = self.time_limit_s * (os.cpu_count() or 1)
        for _ in range(MOST_STARTS):
            if self.is_stopping:
                raise WorkerStopping
            inner = self._inner
            if self._keeper is None or inner is None:
                raise DreamError("the pool has not been started")
            try:
                arguments = (str(source), str(target), limits, cpu_s)
                future = inner.schedule(child.run, args=arguments, timeout=self.time_limit_s)
            except RuntimeError:  # pebble's word for a pool that has broken
                self.replace(inner)
                continue
            with self._futures_lock:
                self._futures.add(future)
            return inner, future
        raise ImageCrashed("the processes that work on pictures do not start")

    def replace(self, broken: ProcessPool) -> None:
        """Put a new inner pool in the place of `broken`, unless that has been done.

        Raises:
          WorkerStopping: the pool was stopped.
        """
        try:
            if self._keeper is not None:
                self._keeper.submit(self._rebuild, broken).result()
        except RuntimeError:
            if not self.is_stopping:
                raise
            raise WorkerStopping from None

    def has_free_child(self) -> bool:
        """Whether fewer jobs run than there are children."""
        with self._futures_lock:
            return sum(future.running() for future in self._futures) < self._processes

    def _await_children(self, inner: ProcessPool, deadline: float) -> None:
        ready: set[int] = set()
        try:
            while len(ready) < self._processes:
                left_s = deadline - time.monotonic()
                asked = [inner.schedule(child.process_id) for _ in range(self._processes)]
                ready.update(future.result(timeout=max(0.0, left_s)) for future in asked)
        except (RuntimeError, OSError, concurrent.futures.CancelledError) as error:
            raise ImageCrashed(
                "the processes that work on pictures do not start; they may have too little memory"
            ) from error

    # --- in the keeper's thread

    def _build(self) -> ProcessPool:
        inner = ProcessPool(
            max_workers=self._processes,
            initializer=child.prepare_process,
            initargs=(os.getpid(), self._child_memory_bytes, fault_points.armed()),
            context=child.Children(),
        )
        self._inner = inner
        try:
            is_running = inner.active  # asking starts it: here, in this thread
        except BrokenProcessPool:
            is_running = False
        if not is_running:
            raise ImageCrashed("the processes that work on pictures do not start")
        return inner

    def _rebuild(self, broken: ProcessPool) -> None:
        if self._inner is broken and not self.is_stopping:
            log.warning("pool_replaced", processes=self._processes)
            self._close()
            self._build()

    def _close(self) -> None:
        if self._inner is not None:
            self._inner.stop()  # type: ignore[no-untyped-call]
            self._inner.join()

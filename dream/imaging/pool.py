"""The pool: the processes that work on pictures, around pebble's `ProcessPool`.

```
worker thread ── submit ─► Job ── wait(poll) ─► Processed | ImageRejected | ImageTimedOut | ImageCrashed
                            │
                          FairQueue ── the next one, when a child is free ─► pebble's pool
keeper thread ── builds and replaces ─► pebble's pool ─► children (child.py)
```

When a child dies, only the picture that it works on is affected. Sometimes pebble then gives up its whole pool, for
example when the last idle child dies. dream then builds a new one, and starts the unfinished jobs again.

Children die with the *thread* that started them (`dream/work/tether.py`). So the keeper thread starts them, or pebble's
thread, which lives as long as its pool; a caller's thread never does.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from dream import fault_points
from dream.errors import DreamError, ImageCrashed, ImageRejected, ImageTimedOut, Reason, WorkerStopping
from dream.imaging import Limits, Processed, child
from dream.imaging.fair_queue import FairQueue
from dream.log import get_logger
from dream.observe.metrics import POOL_CHILDREN, POOL_JOBS, POOL_KILLS, STEP_SECONDS

__all__ = ["Job", "Pool"]

log = get_logger(__name__)

#: Seconds after which a job that has not started, although a child is free, counts as lost.
_LOST_S = 30.0
#: After the death of a worker, Python's resource tracker removes its semaphores, and would print a warning about it.
_NO_NOISE = "ignore:resource_tracker:UserWarning"
#: Seconds after its time limit for which a job may stay: its child has ended then, and pebble should have noticed.
_STUCK_S = 10.0
#: Seconds that the child of an abandoned job may take to die.
_KILL_S = 5.0
#: The number of starts after which a job counts as the cause if the pool breaks each time.
_MOST_STARTS = 3
#: Exit codes of a child whose time, or processor time, was over.
_TIMED_OUT = (-signal.SIGALRM, -signal.SIGXCPU)
#: Seconds that children may take to start.
_START_S = 60.0


class Job:
    """One picture in the pool; made by `Pool.submit`."""

    def __init__(self, pool: Pool, source: Path, target: Path, limits: Limits, group: str) -> None:
        self._pool = pool
        self.arguments = str(source), str(target), limits
        self.group = group
        self._starts = 0
        #: Whether a child has taken it.
        self.has_begun = False
        self._future: Future[Any]
        self._enter()

    def wait(self, poll: Callable[[], None], interval_s: float = 0.1) -> Processed:
        """Wait for the picture, in steps.

        Parameters:
          poll: called after each step; may raise to abandon the job, which is then cancelled.
          interval_s: length of a step.

        Raises:
          ImageRejected: the picture is bad; the message is for its owner.
          ImageTimedOut: the picture took longer than the limit; its child was killed.
          ImageCrashed: the child died, or ran out of memory.
          WorkerStopping: the pool was stopped.
        """
        try:
            while True:
                future = self._future
                concurrent.futures.wait((future,), timeout=interval_s)
                if future is self._in_queue:
                    self._pool.mend()
                elif future.done():
                    try:
                        return self._outcome()
                    except BrokenProcessPool:
                        self._start_again()
                elif self._pool.is_stopping:
                    raise WorkerStopping
                elif self._is_lost():
                    self._start_again()
                poll()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Abandon the job if it is not done.

        If a child worked on it, the child is gone when this returns. If a child was about to begin, that child is
        ended within 0.1 s, and may by then have begun to write the target.
        """
        self._pool.forget(self)
        was_running = self._future.running()
        self._future.cancel()
        if was_running and not self._pool.is_stopping:
            concurrent.futures.wait((self._future,), timeout=_KILL_S)

    def started(self, inner: ProcessPool, future: Future[child.Report]) -> None:
        """A child takes the job next."""
        self._starts += 1
        self.has_begun = True
        self._inner, self._future = inner, future
        self._waiting_since = time.monotonic()
        self._in_queue.set_result(None)  # wakes a thread that waits

    def _enter(self) -> None:
        self._running_since: float | None = None
        self._in_queue: Future[Any] = Future()
        self._future = self._in_queue
        self._inner = self._pool.inner
        self._pool.enter(self)

    def _start_again(self) -> None:
        """Start the job in a new inner pool, because its own is broken.

        Raises:
          ImageCrashed: the job has started too often.
        """
        self._future.cancel()
        self._pool.replace(self._inner)
        if self._starts >= _MOST_STARTS:
            raise ImageCrashed.because(Reason.IMAGE_BROKE_POOL, times=self._starts)
        self._enter()

    def _is_lost(self) -> bool:
        """Whether no child works on the job any more, although pebble has not reported it.

        Raises:
          ImageTimedOut: it is past its time limit and pebble cannot end it.
        """
        now = time.monotonic()
        if self._future.running():
            self._running_since = self._running_since or now
            if now - self._running_since > self._pool.time_limit_s + _STUCK_S:
                self._pool.replace(self._inner)
                raise self._timed_out()
        elif not self._pool.has_free_child():
            self._waiting_since = now
        elif now - self._waiting_since > _LOST_S:
            return True
        return not self._inner.active

    def _outcome(self) -> Processed:
        try:
            report: child.Report = self._future.result(timeout=0)
        except concurrent.futures.CancelledError:
            raise WorkerStopping("the job was cancelled") from None
        except ProcessExpired as error:
            raise self._crashed(error.exitcode) from None
        except TimeoutError:
            raise self._timed_out() from None
        if "processed" in report:
            return report["processed"]
        if "rejected" in report:
            raise ImageRejected(report["rejected"], code=report["code"])
        if "out_of_memory" in report:
            raise ImageCrashed.because(Reason.IMAGE_OUT_OF_MEMORY)
        log.warning("image_crashed", trace=report["failed"])
        raise ImageCrashed.because(Reason.IMAGE_FAILED, detail=report["failed"].strip().splitlines()[-1])

    def _timed_out(self) -> ImageTimedOut:
        return ImageTimedOut.because(Reason.IMAGE_TIMED_OUT, limit_s=self._pool.time_limit_s)

    def _crashed(self, exit_code: Any) -> ImageCrashed | ImageTimedOut:
        if exit_code in _TIMED_OUT:
            return self._timed_out()
        how = f"signal {-exit_code}" if isinstance(exit_code, int) and exit_code < 0 else f"exit code {exit_code}"
        return ImageCrashed.because(Reason.IMAGE_CRASHED, how=how)


def _count_end(future: Future[child.Report]) -> None:
    """Record the end of a job in the metrics."""
    POOL_JOBS.add(-1)
    if future.cancelled():
        return
    error = future.exception()
    if error is None:
        report = future.result()
        STEP_SECONDS.observe(report["took_s"], "process")
        if "out_of_memory" in report:
            POOL_KILLS.add("memory")
    elif isinstance(error, TimeoutError) or getattr(error, "exitcode", None) in _TIMED_OUT:
        POOL_KILLS.add("time_limit")
    else:
        POOL_KILLS.add("crash")


class Pool:
    """Processes that work on pictures.

    Parameters:
      limits: the limits of each picture.
      processes: how many children.
      time_limit_s: wall-clock time of one picture, from when a child starts on it.
      child_memory_bytes: address space of a child.
      renewal: when a child ends after a picture and another takes its place; never by default.
      niceness: of the children, 0 to 19; other processes go before nice ones where processor time is short.
    """

    def __init__(
        self,
        limits: Limits,
        processes: int,
        time_limit_s: float,
        child_memory_bytes: int,
        renewal: child.Renewal | None = None,
        niceness: int = 0,
    ) -> None:
        self.time_limit_s = time_limit_s
        self._limits = limits
        self._processes = processes
        self._child_memory_bytes = child_memory_bytes
        self._renewal = renewal or child.Renewal()
        self._niceness = niceness
        self._keeper: ThreadPoolExecutor | None = None
        self._inner: ProcessPool | None = None  # written by the keeper's thread only
        self._stopping = threading.Event()
        self._queue: FairQueue[Job] = FairQueue()
        #: The futures of started jobs, each with its group and its inner pool.
        self._started: dict[Future[child.Report], tuple[str, ProcessPool]] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the children and wait until each is ready, so that the first picture does not wait for imports.

        Raises:
          ImageCrashed: the children do not start, perhaps because there is too little memory.
          WorkerStopping: the pool was stopped meanwhile, or before.
          DreamError: the pool was started before.
        """
        with self._lock:
            if self.is_stopping:
                raise WorkerStopping
            if self._keeper is not None:
                raise DreamError("the pool was started before")
            self._keeper = keeper = ThreadPoolExecutor(1, thread_name_prefix="dream-pool-keeper")
        try:
            self._start_children(keeper, time.monotonic() + _START_S)
            POOL_CHILDREN.add(self._processes)
        except BaseException:
            self.stop()
            raise

    def submit(self, source: Path, target: Path, limits: Limits | None = None, group: str = "") -> Job:
        """Give the children a picture: `source` is processed into `target`.

        Parameters:
          limits: limits of this picture in place of the pool's.
          group: groups take turns at the children.

        Raises:
          WorkerStopping: the pool was stopped.
          ImageCrashed: no child can be started.
          DreamError: the pool was not started.
        """
        return Job(self, source, target, limits or self._limits, group)

    def stop(self) -> None:
        """End all children at once, even while they start. A caller that waits for a job gets `WorkerStopping`."""
        with self._lock:
            was_stopping, keeper = self.is_stopping, self._keeper
            self._stopping.set()
        if keeper is not None and not was_stopping:
            keeper.submit(self._close).result()
            keeper.shutdown()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def inner(self) -> ProcessPool:
        """The present inner pool.

        Raises:
          WorkerStopping: the pool was stopped.
          DreamError: the pool was not started.
        """
        if self.is_stopping:
            raise WorkerStopping
        if self._keeper is None or self._inner is None:
            raise DreamError("the pool has not been started")
        return self._inner

    def enter(self, job: Job) -> None:
        """Put a job into the queue (for `Job`)."""
        with self._lock:
            self._queue.join(job.group, job)
            POOL_JOBS.add(1)
        self._advance()

    def forget(self, job: Job) -> None:
        """Remove a job from the queue, if it waits there (for `Job`)."""
        with self._lock:
            if self._queue.leave(job.group, job):
                POOL_JOBS.add(-1)

    def mend(self) -> None:
        """Replace the inner pool if it is broken (for a `Job` in the queue, which is not the cause).

        Raises:
          WorkerStopping: the pool was stopped.
          ImageCrashed: no child can be started.
        """
        inner = self.inner
        if not inner.active:
            self.replace(inner)

    def _advance(self) -> None:
        """Start waiting jobs while children are free."""
        with self._lock:
            while not self.is_stopping and self.has_room() and (found := self._queue.next()):
                group, job = found
                try:
                    inner, future = self._schedule(job)
                except (RuntimeError, WorkerStopping):  # a broken pool, which a waiting job replaces, or a stopped one
                    self._queue.put_back(group, job)
                    return
                self._started[future] = group, inner
                job.started(inner, future)
                future.add_done_callback(self._ended)

    def _schedule(self, job: Job) -> tuple[ProcessPool, Future[child.Report]]:
        inner = self.inner
        # Not pebble's own time-out: it reads the clock of the day, which may be set.
        arguments = (*job.arguments, self.time_limit_s, self.time_limit_s * (os.cpu_count() or 1))
        future = inner.schedule(child.run, args=arguments)
        future.add_done_callback(_count_end)
        return inner, future

    def _ended(self, future: Future[child.Report]) -> None:
        with self._lock:
            if found := self._started.pop(future, None):
                self._queue.ended(found[0])
        self._advance()

    def replace(self, broken: ProcessPool) -> None:
        """Replace the inner pool `broken` by a new one, unless another thread has done so.

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

    def works_for(self, group: str) -> bool:
        """Whether a picture of the group waits or is in work."""
        with self._lock:
            return group in self._queue

    def has_room(self) -> bool:
        """Whether a child takes the next picture at once."""
        with self._lock:
            return len(self._started) < self._processes

    def has_free_child(self) -> bool:
        """Whether fewer jobs run than there are children."""
        with self._lock:
            return sum(future.running() for future in self._started) < self._processes

    def _start_children(self, keeper: ThreadPoolExecutor, deadline: float) -> None:
        ready: set[int] = set()
        try:
            inner = keeper.submit(self._build).result()
            while len(ready) < self._processes:
                asked = [inner.schedule(child.process_id) for _ in range(self._processes)]
                while concurrent.futures.wait(asked, timeout=0.1).not_done and time.monotonic() < deadline:
                    if self.is_stopping:  # a stopped pebble pool leaves these futures pending
                        raise WorkerStopping
                ready.update(future.result(timeout=0) for future in asked)
        except (RuntimeError, OSError, concurrent.futures.CancelledError) as error:
            if self.is_stopping:
                raise WorkerStopping from error
            raise ImageCrashed.because(Reason.POOL_LACKS_MEMORY) from error

    # --- in the keeper's thread

    def _build(self) -> ProcessPool:
        if self.is_stopping:  # the stop has closed the pool already
            raise WorkerStopping
        if _NO_NOISE not in sys.warnoptions:  # the tracker, a process of its own, gets the options of this one
            sys.warnoptions.append(_NO_NOISE)
        inner = ProcessPool(
            max_workers=self._processes,
            max_tasks=self._renewal,
            initializer=child.prepare_process,
            initargs=(os.getpid(), self._child_memory_bytes, self._niceness, fault_points.armed()),
            context=child.Children(),
        )
        is_running = False
        try:
            with suppress(BrokenProcessPool):
                is_running = inner.active  # this call starts its children, from this thread
        finally:
            if not is_running:
                inner.stop()  # type: ignore[no-untyped-call]
            self._inner = inner  # now, because a look at `active` would start the children from another thread
        if not is_running:
            raise ImageCrashed.because(Reason.POOL_DOES_NOT_START)
        return inner

    def _rebuild(self, broken: ProcessPool) -> None:
        if self._inner is broken and not self.is_stopping:
            log.warning("pool_replaced", processes=self._processes)
            self._close()
            self._build()
            for future in [each for each, (_, inner) in list(self._started.items()) if inner is broken]:
                self._ended(future)
            self._advance()

    def _close(self) -> None:
        if self._inner is not None:
            self._inner.stop()  # type: ignore[no-untyped-call]
            self._inner.join()

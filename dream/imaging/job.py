"""One picture in the pool: waited for in steps, started again where the pool broke under it."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired

from dream.errors import ImageCrashed, ImageRejected, ImageTimedOut, WorkerStopping
from dream.imaging import Limits, Processed, child
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.imaging.pool import Pool

__all__ = ["MOST_STARTS", "Job"]

log = get_logger(__name__)

#: A job that does not start for this long though a child is free was lost between pipe and child.
_LOST_S = 30.0
#: How long after its time limit a job may still be there: pebble cannot end it, for a dead child holds its lock.
_STUCK_S = 10.0
#: How long an abandoned job's child may take to die.
_KILL_S = 5.0
#: How often a job is started, where the pool breaks under it, before it is held responsible.
MOST_STARTS = 3


class Job:
    """One picture in the pool; made by `Pool.submit`."""

    def __init__(self, pool: Pool, source: Path, target: Path, limits: Limits) -> None:
        self._pool = pool
        self._source = source
        self._target = target
        self._limits = limits
        self._starts = 0
        self._start()

    def wait(self, poll: Callable[[], None], interval_s: float = 0.1) -> Processed:
        """Wait for the picture, in steps.

        Parameters:
          poll: called after each step; may raise to abandon the job, which is then cancelled.
          interval_s: length of a step.

        Raises:
          ImageRejected: the picture is bad; the message is for its owner.
          ImageTimedOut: it took longer than the limit; its child was killed.
          ImageCrashed: its child died, or ran out of memory.
          WorkerStopping: the pool was stopped.
        """
        try:
            while True:
                concurrent.futures.wait((self._future,), timeout=interval_s)
                if self._future.done():
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
        """Abandon the job, where it is not done.

        Where a child was at work on it, the child is gone when this returns. Where it was queued, the child that
        meets it is ended within 0.1 s, and may by then have begun to write the target.
        """
        was_running = self._future.running()
        self._future.cancel()
        if was_running and not self._pool.is_stopping:
            concurrent.futures.wait((self._future,), timeout=_KILL_S)

    def _start(self) -> None:
        self._starts += 1
        self._inner, self._future = self._pool.schedule(self._source, self._target, self._limits)
        self._running_since: float | None = None
        self._waiting_since = time.monotonic()

    def _start_again(self) -> None:
        """Start in a new inner pool, the present one having broken.

        Raises:
          ImageCrashed: this has happened too often.
        """
        self._future.cancel()
        self._pool.replace(self._inner)
        if self._starts >= MOST_STARTS:
            raise ImageCrashed(f"the pool broke {self._starts} times while it had this picture")
        self._start()

    def _is_lost(self) -> bool:
        """Whether nobody works on the job any more, though pebble has not said so.

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
            raise ImageRejected(report["rejected"])
        if "out_of_memory" in report:
            raise ImageCrashed("the picture needs more memory than its process may have")
        log.warning("image_crashed", trace=report["failed"])
        raise ImageCrashed("work on the picture failed", detail=report["failed"].strip().splitlines()[-1])

    def _timed_out(self) -> ImageTimedOut:
        return ImageTimedOut(f"the picture took longer than {self._pool.time_limit_s:g} s to process")

    def _crashed(self, exit_code: Any) -> ImageCrashed | ImageTimedOut:
        if exit_code == -signal.SIGXCPU:
            return self._timed_out()
        how = f"signal {-exit_code}" if isinstance(exit_code, int) and exit_code < 0 else f"exit code {exit_code}"
        return ImageCrashed(f"the process that worked on the picture died ({how})")

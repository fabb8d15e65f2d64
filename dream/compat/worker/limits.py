"""Time limits of runs in threads, and how a run is ended from outside.

    soft limit ─► SoftTimeLimitExceeded in the run's thread: the task may catch it
    hard limit ─► the run ends with TimeLimitExceeded, whatever the task catches
    terminated ─► the run ends as revoked
    the worker stops ─► its message goes back on the queue
    … and does not listen for a second, for its thread blocks: it is given up

What is given up is told as ended, and its worker is replaced: nothing else stops a thread that blocks.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dramatiq.middleware.threading import raise_thread_exception

from dream.compat.app.trace import Ended, ExceptionInfo
from dream.compat.exceptions import Reject, SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from dream.compat.states import FAILURE, REJECTED, REVOKED
from dream.compat.stopping import Stopped

__all__ = ["Watch"]

_LOOK_EVERY_S = 0.05
#: A thread that has not listened by then blocks.
_PATIENCE_S = 1.0


class _AtLimit(Stopped):
    state = FAILURE

    def __init__(self) -> None:
        self.error = TimeLimitExceeded()  # a new error each time, because Sentry drops an error that it has seen


class _Terminated(Stopped):
    state = REVOKED

    def __init__(self) -> None:
        self.error = TaskRevokedError("terminated")


class _HandedBack(Stopped):
    state = REJECTED

    def __init__(self) -> None:
        self.error = Reject("the worker stops", requeue=True)


@dataclass
class _Run:
    """One run in a thread."""

    task_id: str
    thread_id: int
    soft_at: float | None
    hard_at: float | None
    give_up: Callable[[Ended], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False
    is_told: bool = False
    given_up_at: float | None = None
    stop: type[Stopped] | None = None

    def tell(self, error: type[BaseException]) -> None:
        """Raise an error in the run's thread, unless the run is over."""
        with self.lock:
            if not self.is_over:
                raise_thread_exception(self.thread_id, error)  # type: ignore[no-untyped-call]
                self.is_told = True

    def end(self, stop: type[Stopped]) -> None:
        """Raise in its thread what the task cannot catch as an `Exception`."""
        self.stop, self.given_up_at = stop, time.monotonic() + _PATIENCE_S
        self.soft_at = self.hard_at = None
        self.tell(stop)

    def over(self) -> None:
        """The run has left the task's code; what was to be raised in it must not be raised behind it."""
        with self.lock:
            self.is_over = True
            if self.is_told:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), None)


class Watch:
    """Looks after the runs of one worker process."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="limits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    @contextmanager
    def watched(
        self, task_id: str, hard_s: float | None, soft_s: float | None, give_up: Callable[[Ended], None]
    ) -> Iterator[None]:
        """Around a task's code in this thread.

        Parameters:
          hard_s, soft_s: its limits.
          give_up: called, in another thread, with how the run ended where its thread does not listen.
        """
        now, thread_id = time.monotonic(), threading.get_ident()
        soft_at, hard_at = (None if limit is None else now + limit for limit in (soft_s, hard_s))
        run = self._runs[thread_id] = _Run(task_id, thread_id, soft_at, hard_at, give_up)
        try:
            yield
        finally:
            run.over()
            self._runs.pop(thread_id, None)

    def has(self, task_id: str) -> bool:
        """Whether a run of the task is here."""
        return any(run.task_id == task_id for run in list(self._runs.values()))

    def terminate(self, task_id: str) -> bool:
        """End the run of a task; False where none is here."""
        runs = [run for run in list(self._runs.values()) if run.task_id == task_id]
        for run in runs:
            run.end(_Terminated)
        return bool(runs)

    def hand_back(self) -> None:
        """End all runs, for others to run them again."""
        for run in list(self._runs.values()):
            run.end(_HandedBack)

    def _look_after(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            for run in list(self._runs.values()):
                _look(run, now)


def _look(run: _Run, now: float) -> None:
    if run.stop is not None and run.given_up_at is not None and now >= run.given_up_at:
        run.given_up_at = None
        stop = run.stop()
        run.give_up(Ended(stop.state, stop.error, ExceptionInfo(stop.error)))
    elif run.hard_at is not None and now >= run.hard_at:
        run.end(_AtLimit)
    elif run.soft_at is not None and now >= run.soft_at:
        run.soft_at = None
        run.tell(SoftTimeLimitExceeded)

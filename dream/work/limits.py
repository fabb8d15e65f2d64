"""Time limits of runs in threads, and the end of a run from outside.

    soft limit ─► an error in the run's thread, which the task may catch
    hard limit ─► an interrupt, which ends the run whatever the task catches
    an end from outside ─► the interrupt that the caller names
    … and the thread does not react for a second, because it blocks ─► the run is given up

The caller reports a run that is given up as ended, and has the worker replaced: nothing else stops a blocked thread.
Dream's own tasks check their deadline themselves, and `dream.work.middleware.time_limit` ends those that do not.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dramatiq.middleware.threading import raise_thread_exception

__all__ = ["Watch"]

_LOOK_EVERY_S = 0.05
#: Seconds after which a thread that has not reacted counts as blocked.
_PATIENCE_S = 1.0

#: The class of the interrupts.
S = TypeVar("S", bound=BaseException)


@dataclass
class _Run(Generic[S]):
    """One run in a thread."""

    task_id: str
    thread_id: int
    soft_at: float | None
    hard_at: float | None
    give_up: Callable[[type[S]], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False
    is_interrupted: bool = False
    given_up_at: float | None = None
    interrupt: type[S] | None = None

    def raise_in_thread(self, error: type[BaseException]) -> None:
        """Raise an error in the run's thread, unless the run is over."""
        with self.lock:
            if not self.is_over:
                raise_thread_exception(self.thread_id, error)  # type: ignore[no-untyped-call]
                self.is_interrupted = True

    def end(self, interrupt: type[S]) -> None:
        """Raise the interrupt in the run's thread."""
        self.interrupt, self.given_up_at = interrupt, time.monotonic() + _PATIENCE_S
        self.soft_at = self.hard_at = None
        self.raise_in_thread(interrupt)

    def over(self) -> None:
        """The run has left the task's code; an interrupt that is still pending must not be raised after it."""
        with self.lock:
            self.is_over = True
            if self.is_interrupted:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), None)


class Watch(Generic[S]):
    """Enforces the limits of the runs of one worker process, in a thread.

    Parameters:
      at_soft_limit: the error that a run gets at its soft limit.
      at_hard_limit: the interrupt that ends a run at its hard limit.
    """

    def __init__(self, at_soft_limit: type[Exception], at_hard_limit: type[S]) -> None:
        self._at_soft_limit = at_soft_limit
        self._at_hard_limit = at_hard_limit
        self._runs: dict[int, _Run[S]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="limits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    @contextmanager
    def watched(
        self, task_id: str, hard_s: float | None, soft_s: float | None, give_up: Callable[[type[S]], None]
    ) -> Iterator[None]:
        """Enforce limits on the task's code inside the block.

        Parameters:
          hard_s, soft_s: its limits.
          give_up: called in another thread, with the interrupt to which the run's thread does not react.
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
        """Whether this process runs the task."""
        return any(run.task_id == task_id for run in list(self._runs.values()))

    def end(self, task_id: str, interrupt: type[S]) -> bool:
        """End the run of a task; False if this process runs none."""
        runs = [run for run in list(self._runs.values()) if run.task_id == task_id]
        for run in runs:
            run.end(interrupt)
        return bool(runs)

    def end_all(self, interrupt: type[S]) -> None:
        """End all runs."""
        for run in list(self._runs.values()):
            run.end(interrupt)

    def _look_after(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            for run in list(self._runs.values()):
                self._look(run, now)

    def _look(self, run: _Run[S], now: float) -> None:
        if run.interrupt is not None and run.given_up_at is not None and now >= run.given_up_at:
            run.given_up_at = None
            run.give_up(run.interrupt)
        elif run.hard_at is not None and now >= run.hard_at:
            run.end(self._at_hard_limit)
        elif run.soft_at is not None and now >= run.soft_at:
            run.soft_at = None
            run.raise_in_thread(self._at_soft_limit)

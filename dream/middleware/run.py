"""One run of a task: what it holds, when it must end, which thread is in it, and how it is told of."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dramatiq.middleware import TimeLimitExceeded

from dream.db.tasks import Claim
from dream.errors import DreamError, LeaseLost, RunContinues, TaskRevoked, TaskTimedOut, WorkerStopping
from dream.log import redact
from dream.middleware import aside
from dream.outcomes import ANNOUNCED

__all__ = ["Run", "attach", "attached", "class_of", "current_run", "end", "full_reason_of", "log_fields", "reason_of"]

T = TypeVar("T")

_local = threading.local()
#: How often a run that waits for somebody else's code looks whether it must end.
_LOOK_EVERY_S = 0.1
#: As many characters as a row has room for.
_LONGEST_CLASS = 255
_LONGEST_DETAIL = 2000


@dataclass
class Run:
    """One run of a task in this thread."""

    #: Its right to write.
    claim: Claim
    #: Monotonic seconds at which the run must end.
    deadline: float
    #: Set once another run has the task.
    lost: threading.Event
    #: Set once the worker's time is up.
    stopping: threading.Event
    #: Set once nobody wants the task any more.
    revoked: threading.Event = field(default_factory=threading.Event)
    #: Whether this run has finished something that the next one need not do again.
    has_progressed: bool = False
    #: What ends with the run: its lease, its place beside the others, its log fields.
    scope: ExitStack = field(default_factory=ExitStack)
    _is_whole: bool = False

    def check(self) -> None:
        """Called wherever the run waits, and between its steps.

        Raises:
          LeaseLost: another run has the task.
          TaskRevoked: nobody wants the task any more.
          WorkerStopping: the worker's time is up.
          RunContinues: the time limit is reached, and the rest is for the next run.
          TaskTimedOut: the time limit is reached with nothing done.
        """
        if self.lost.is_set():
            raise LeaseLost
        if self.revoked.is_set() and not self._is_whole:
            raise TaskRevoked
        if self.stopping.is_set():
            raise WorkerStopping
        if time.monotonic() >= self.deadline:
            raise RunContinues if self.has_progressed else TaskTimedOut

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around what must not be left half done by a revocation, which is heard behind it."""
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False

    def wait_for(self, call: Callable[[], T]) -> T:
        """What `call` returns: code that waits where nothing can stop it, as a request to a store that hangs.

        It runs in another thread, which is left to its own time-outs where the run must end first.

        Raises:
          LeaseLost, TaskRevoked, WorkerStopping, RunContinues, TaskTimedOut: as `check`.
          Exception: whatever `call` raises.
        """
        context = copy_context()  # its log lines carry the run's fields
        future = aside.run(lambda: context.run(call))
        while not future.done():
            concurrent.futures.wait((future,), timeout=_LOOK_EVERY_S)
            if not future.done():
                self.check()
        return future.result()


def attach(run: Run | None) -> None:
    """Say which run this thread is in; None where it has ended."""
    _local.run = run


def end(run: Run) -> None:
    """This thread's run is over: its lease, its place and its log fields go."""
    attach(None)
    run.scope.close()


def attached() -> Run | None:
    """The run that this thread is in, if it is in one."""
    run: Run | None = getattr(_local, "run", None)
    return run


def current_run() -> Run:
    """The run of this thread.

    Raises:
      DreamError: the actor was called without one.
    """
    run = attached()
    if run is None:
        raise DreamError("this actor runs only under a claimed task: send it, or call the task of dream.celery")
    return run


def log_fields(claim: Claim) -> dict[str, Any]:
    """What every line of a run carries, wherever it runs: task, attempt (from 1), and the dream where there is one."""
    dream_id = {"dream_id": claim.args[0]} if claim.name in ANNOUNCED and claim.args else {}
    return {"task_id": claim.task_id, "attempt": claim.attempts + 1, **dream_id}


def class_of(exception: BaseException) -> str:
    """As what callers get an error: `module:QualifiedName`."""
    kind = TaskTimedOut if isinstance(exception, TimeLimitExceeded) else type(exception)
    return f"{kind.__module__}:{kind.__qualname__}"[:_LONGEST_CLASS]


def reason_of(exception: BaseException) -> str:
    """The sentence that the owner reads. Of errors that are not ours it has the class only."""
    if isinstance(exception, TimeLimitExceeded):
        exception = TaskTimedOut()
    if isinstance(exception, DreamError):
        return exception.for_owner
    return f"something went wrong on our side ({type(exception).__name__})"


def full_reason_of(exception: BaseException) -> str:
    """The error that a task's row keeps: the owner's sentence, and below it the full words for operators."""
    sentence = reason_of(exception)
    if isinstance(exception, TimeLimitExceeded) or (isinstance(exception, DreamError) and str(exception) == sentence):
        return sentence
    words = f"{type(exception).__name__}: {exception}"[:_LONGEST_DETAIL].replace("\0", "?")
    return f"{sentence}\n{redact(words.encode(errors='replace').decode())}"

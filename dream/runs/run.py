"""One run of a task: its claim, the renewal of its lease, its deadline, its thread, and its events."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dramatiq.middleware import TimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError

from dream.db import tasks
from dream.db.faults import explain
from dream.db.tasks import Claim
from dream.errors import DreamError, LeaseLost, Reason, RunContinues, TaskRevoked, TaskTimedOut, WorkerStopping
from dream.log import bind, get_logger, redact
from dream.messages.registry import kind_of
from dream.messages.states import Failure
from dream.observe import tracing
from dream.work import aside

__all__ = [
    "LeaseKeeper",
    "Run",
    "attach",
    "attached",
    "begin",
    "current_run",
    "end",
    "failure_of",
    "log_fields",
    "reason_of",
]

P = ParamSpec("P")
T = TypeVar("T")
log = get_logger(__name__)

_local = threading.local()
#: Seconds for which a stopping worker waits for a renewal that hangs with its database.
_LEAVE_S = 2.0
#: Seconds between two checks whether a run must end, while it waits for code of a library.
_LOOK_EVERY_S = 0.1
#: The number of characters that a row can hold.
_LONGEST_CLASS = 255
_LONGEST_DETAIL = 2000


if TYPE_CHECKING:
    from dream.db import Database


@dataclass
class Run:
    """One run of a task in this thread."""

    #: The claim, which every write checks.
    claim: Claim
    #: Monotonic seconds at which the run must end.
    deadline: float
    #: Set once another run has the task.
    lost: threading.Event
    #: Set once the worker must stop.
    stopping: threading.Event
    #: Set once the task is revoked.
    revoked: threading.Event = field(default_factory=threading.Event)
    #: Whether this run has finished a step that the next run need not repeat.
    has_progressed: bool = False
    #: Everything that ends with the run: its lease, its place at the gate, its log fields.
    scope: ExitStack = field(default_factory=ExitStack)
    _is_whole: bool = False

    def check(self) -> None:
        """Raise an error if the run must end. Called at each wait of the run, and between its steps.

        Raises:
          LeaseLost: another run has the task.
          TaskRevoked: the task was revoked.
          WorkerStopping: the worker stops.
          RunContinues: the time limit is reached, and the next run does the rest.
          TaskTimedOut: the time limit is reached, and no step is finished.
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
        """Hold a revocation back until the code inside is finished."""
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False

    def wait_for(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` in another thread and return its value: nothing can stop a call such as an HTTP request.

        If the run must end first, the other thread continues until its own time-outs.

        Raises:
          LeaseLost, TaskRevoked, WorkerStopping, RunContinues, TaskTimedOut: as `check`.
          Exception: any error of `call`.
        """
        context = copy_context()  # its log lines carry the run's fields
        future = aside.run(lambda: context.run(call, *args, **kwargs))
        while not future.done():
            concurrent.futures.wait((future,), timeout=_LOOK_EVERY_S)
            if not future.done():
                self.check()
        return future.result()


class LeaseKeeper:
    """Renews each lease from `keep` until `drop`.

    Parameters:
      lease_s: seconds for which a lease is valid, by the database's clock.
      renew_s: seconds between two renewals.
    """

    def __init__(self, database: Database, lease_s: float, renew_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._lost: dict[str, threading.Event] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to renew, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; wait at most 2 s for a renewal that hangs."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_LEAVE_S)

    def keep(self, token: str) -> threading.Event:
        """Renew this lease from now on; the event is set once another run has taken the task."""
        lost = self._lost[token] = threading.Event()
        return lost

    def drop(self, token: str) -> None:
        """Renew this lease no more."""
        self._lost.pop(token, None)

    def _run(self) -> None:
        while not self._stopped.wait(self._renew_s):
            tokens = dict(self._lost)
            if not tokens:
                continue
            try:
                with self._database.begin() as session:
                    held = tasks.renew(session, tokens, self._lease_s)
            except SQLAlchemyError as error:
                # The database is away; the next write shows whether the leases still stand.
                log.warning("leases_not_renewed", count=len(tokens), error=str(explain(error)))
                continue
            for token in tokens.keys() - held:
                tokens[token].set()


def begin(claim: Claim, keeper: LeaseKeeper, *, deadline: float, stopping: threading.Event) -> Run:
    """Begin a run. Until its scope is closed, its lease is renewed and its log lines carry its fields.

    Parameters:
      deadline: monotonic seconds at which the run must end.
      stopping: set once the worker must stop.
    """
    run = Run(claim, deadline, keeper.keep(claim.token), stopping)
    run.scope.callback(keeper.drop, claim.token)
    fields = log_fields(claim)
    run.scope.enter_context(bind(**fields))
    tracing.note(**fields)
    return run


def attach(run: Run | None) -> None:
    """Set the run of this thread; None once the run has ended."""
    _local.run = run


def end(run: Run) -> None:
    """End this thread's run: release its lease, its place and its log fields."""
    attach(None)
    run.scope.close()


def attached() -> Run | None:
    """The run of this thread, or None."""
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
    """The fields of every log line of a run: task, attempt (from 1), and the dream if the task has one."""
    kind = kind_of(claim.name)
    dream_id = kind.dream_of(claim.args) if kind is not None else None
    fields = {"task_id": claim.task_id, "attempt": claim.attempts + 1}
    return fields if dream_id is None else {**fields, "dream_id": dream_id}


def failure_of(exception: BaseException) -> Failure:
    """The text of a failure for the task's row: the owner's sentence, and below it the full error for operators."""
    error = _as_ours(exception)
    kind = type(error)
    error_class = f"{kind.__module__}:{kind.__qualname__}"[:_LONGEST_CLASS]
    sentence = reason_of(error)
    if not isinstance(error, DreamError):
        return Failure(_with_words(sentence, error), error_class, Reason.INTERNAL_ERROR.code)
    is_whole = str(error) == sentence
    return Failure(sentence if is_whole else _with_words(sentence, error), error_class, error.code)


def reason_of(exception: BaseException) -> str:
    """The sentence for the owner. For an error that is not dream's own, it contains only the class."""
    error = _as_ours(exception)
    if isinstance(error, DreamError):
        return error.for_owner
    return Reason.INTERNAL_ERROR.sentence.format(error=type(error).__name__)


def _as_ours(exception: BaseException) -> BaseException:
    return TaskTimedOut() if isinstance(exception, TimeLimitExceeded) else exception


def _with_words(sentence: str, error: BaseException) -> str:
    words = f"{type(error).__name__}: {error}"[:_LONGEST_DETAIL].replace("\0", "?")
    return f"{sentence}\n{redact(words.encode(errors='replace').decode())}"

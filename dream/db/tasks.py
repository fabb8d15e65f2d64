"""Task rows: claimed by conditional update, held by a lease, finished once.

queued ──claim──► running ──finish──► succeeded | failed | revoked
   ▲               │   ↻ a claim after an expired lease (a death)
   └───────────────┘ retry, hand back; and a failed one that is replayed (`dream.db.dead_letters`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import Boolean, Table, bindparam, case, false, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from dream.db.clock import now
from dream.db.models import DreamTask
from dream.errors import DreamError, LeaseLost
from dream.messages import TaskState

__all__ = [
    "MAX_DEATHS",
    "Claim",
    "Refusal",
    "add",
    "claim",
    "finish",
    "give_turn_back",
    "hand_back",
    "hold",
    "may_resend",
    "newest_of",
    "overdue",
    "refusal",
    "renew",
    "replace_args",
    "retry_later",
]

#: A task whose worker died this often is not tried again.
MAX_DEATHS = 3
#: From this death on a task runs alone, so that the last one, which decides, is nobody else's.
SUSPECT_DEATHS = MAX_DEATHS - 1
_tasks = cast("Table", DreamTask.__table__)


@dataclass(frozen=True)
class Claim:
    """A run's right to work on its task, good while its lease token stands in the row."""

    task_id: str
    token: str
    name: str
    args: tuple[Any, ...]
    attempts: int
    deaths: int
    has_expired: bool = False


class Refusal(StrEnum):
    """Why a task cannot be claimed."""

    UNKNOWN = "unknown"
    FINISHED = "finished"
    LEASED = "leased"
    NOT_DUE = "not_due"
    SUSPECT = "suspect"


def add(
    session: Session,
    task_id: str,
    name: str,
    args: Sequence[Any],
    due_in_s: float = 0,
    expires_in_s: float | None = None,
    queue: str | None = None,
) -> DreamTask:
    """Write a new task's row.

    Parameters:
      due_in_s: seconds from now, by the database's clock, before which no run may begin.
      expires_in_s: seconds from now after which no run may begin; None where it never expires.
      queue: the queue (without prefix) on which it runs, where that is not its name's own.
    """
    expires_at = None if expires_in_s is None else now(expires_in_s)
    task = DreamTask(id=task_id, name=name, args=list(args), due_at=now(due_in_s), expires_at=expires_at, queue=queue)
    session.add(task)
    return task


def _is_unfinished() -> Any:
    return _tasks.c.state.in_((TaskState.QUEUED, TaskState.RUNNING))


def _is_free() -> Any:
    return or_(_tasks.c.lease_token.is_(None), _tasks.c.lease_expires_at <= now())


def _deaths() -> Any:
    """The deaths of a free task: a lease that nobody gave back is one more."""
    return _tasks.c.deaths + case((_tasks.c.lease_token.is_not(None), 1), else_=0)


# What each run writes is built once, and on the table: to build a statement costs more than to run it.
_CLAIM = (
    update(_tasks)
    .where(
        _tasks.c.id == bindparam("task"),
        _is_unfinished(),
        _tasks.c.due_at <= now(),
        _is_free(),
        or_(bindparam("alone", type_=Boolean), _deaths() != SUSPECT_DEATHS),
    )
    .values(
        state=TaskState.RUNNING,
        deaths=_deaths(),
        lease_token=bindparam("token"),
        lease_expires_at=now("lease_s"),
    )
    .returning(
        _tasks.c.name,
        _tasks.c.args,
        _tasks.c.attempts,
        _tasks.c.deaths,
        func.coalesce(_tasks.c.expires_at <= now(), false()),
    )
)
_HOLD = (
    update(_tasks)
    .where(_tasks.c.id == bindparam("task"), _tasks.c.lease_token == bindparam("token"))
    .values(resends=0)
    .returning(_tasks.c.id)
)
_RELEASE = _HOLD.values(lease_token=None, lease_expires_at=None)
_FINISH = _RELEASE.values(finished_at=now())


def claim(session: Session, task_id: str, lease_s: float, *, alone: bool = True) -> Claim | None:
    """Take the task if it is due and free; an expired lease found here is a death of its last run.

    Parameters:
      alone: whether nothing else runs in this process; a task that may have killed its worker twice is taken only then.
    """
    token = uuid4().hex
    row = session.execute(_CLAIM, {"task": task_id, "token": token, "lease_s": lease_s, "alone": alone}).first()
    if row is None:
        return None
    name, args, attempts, deaths, has_expired = row
    return Claim(task_id, token, name, tuple(args), attempts, deaths, bool(has_expired))


def refusal(session: Session, task_id: str) -> tuple[Refusal, float]:
    """Why `claim` just gave nothing, and the seconds after which it may."""
    row = session.execute(
        select(DreamTask.state, DreamTask.due_at, DreamTask.lease_expires_at, _deaths(), _clock()).where(
            DreamTask.id == task_id
        )
    ).first()
    if row is None:
        return Refusal.UNKNOWN, 0.0
    state, due_at, lease_expires_at, deaths, clock = row
    if state.is_terminal:
        return Refusal.FINISHED, 0.0
    if due_at > clock:
        return Refusal.NOT_DUE, (due_at - clock).total_seconds()
    lease_left_s = (lease_expires_at - clock).total_seconds() if lease_expires_at else 0.0
    if lease_left_s <= 0 and deaths == SUSPECT_DEATHS:
        return Refusal.SUSPECT, 0.0
    return Refusal.LEASED, max(0.0, lease_left_s)


def _clock() -> Any:
    return now().label("clock")


def hold(session: Session, claim: Claim) -> None:
    """Lock the row for the rest of the transaction, so that what follows is written only while the lease is ours.

    Raises:
      LeaseLost: another run has the task, or it is finished.
    """
    _write(session, claim, _HOLD)


def _write(session: Session, claim: Claim, statement: ReturningUpdate[Any], **values: Any) -> None:
    if session.execute(statement, {"task": claim.task_id, "token": claim.token, **values}).first() is None:
        raise LeaseLost(f"task {claim.task_id} is held by another run")


def renew(session: Session, tokens: Iterable[str], lease_s: float) -> set[str]:
    """Make these leases last `lease_s` from now; returns the tokens that still stand."""
    held = session.scalars(
        update(DreamTask)
        .where(DreamTask.lease_token.in_(list(tokens)))
        .values(lease_expires_at=now(lease_s))
        .returning(DreamTask.lease_token)
        .execution_options(synchronize_session=False)
    )
    return {token for token in held if token is not None}


def replace_args(session: Session, claim: Claim, args: Sequence[Any]) -> None:
    """Write other arguments, which mean the same, while the lease is ours."""
    _write(session, claim, _HOLD, args=list(args))


def retry_later(session: Session, claim: Claim, error: str, delay_s: float, *, error_class: str | None = None) -> int:
    """Count a failed run and free the task until `delay_s` from now; returns the attempts so far."""
    attempts = claim.attempts + 1
    again = {"state": TaskState.QUEUED, "attempts": attempts, "error": error, "error_class": error_class}
    _write(session, claim, _RELEASE.values(due_at=now(delay_s)), **again)
    return attempts


def hand_back(session: Session, claim: Claim) -> None:
    """Free the task at once; neither an attempt nor a death."""
    _write(session, claim, _RELEASE.values(due_at=now()), state=TaskState.QUEUED)


def finish(
    session: Session,
    claim: Claim,
    state: TaskState,
    *,
    result: Any = None,
    error: str | None = None,
    error_class: str | None = None,
) -> None:
    """Write the outcome, once.

    Parameters:
      error, error_class: what a person reads, and as what callers get it (`module:QualifiedName`).

    Raises:
      LeaseLost: another run has the task, or it is finished.
      DreamError: that state is no end.
    """
    if not state.is_terminal:
        raise DreamError(f"a task cannot end as {state}")
    attempts = claim.attempts + (state is TaskState.FAILED)
    ended = {"state": state, "attempts": attempts, "result": result, "error": error, "error_class": error_class}
    _write(session, claim, _FINISH, **ended)


def overdue(session: Session, overdue_s: float) -> Sequence[DreamTask]:
    """Unfinished tasks past their due time by `overdue_s` that nobody works on, the longest not sent first."""
    return session.scalars(
        select(DreamTask)
        .where(_is_unfinished(), DreamTask.due_at <= now(-overdue_s), _is_free())
        .order_by(DreamTask.resent_at.is_not(None), DreamTask.resent_at, DreamTask.due_at)
    ).all()


def may_resend(session: Session, task: DreamTask, gap_s: float) -> bool:
    """Take the turn to send this task again, once in `gap_s` and for one sweep of those that run at a time."""
    row = session.execute(
        update(DreamTask)
        .where(
            DreamTask.id == task.id,
            DreamTask.resends == task.resends,
            or_(DreamTask.resent_at.is_(None), DreamTask.resent_at <= now(-gap_s)),
        )
        .values(resends=DreamTask.resends + 1, resent_at=now())
        .returning(DreamTask.id)
        .execution_options(synchronize_session=False)
    ).first()
    return row is not None


def give_turn_back(session: Session, task: DreamTask) -> None:
    """Undo `may_resend` for a task that could not be sent; `task` is as it was read before."""
    session.execute(
        update(DreamTask)
        .where(DreamTask.id == task.id, DreamTask.resends == task.resends + 1)
        .values(resends=task.resends, resent_at=task.resent_at)
        .execution_options(synchronize_session=False)
    )


def newest_of(session: Session, prefix: str) -> DreamTask | None:
    """The task whose id is the last of those that start so; a scheduled task's id ends with its date."""
    return session.scalar(
        select(DreamTask).where(DreamTask.id.startswith(prefix, autoescape=True)).order_by(DreamTask.id.desc()).limit(1)
    )

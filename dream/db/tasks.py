"""Task rows: claimed by conditional update under a lease, finished once, announced once.

queued ──claim──► running ──finish──► succeeded | failed | revoked ──► announced
   ▲               │   ↻ a claim after an expired lease (a death)
   └───────────────┘ retry, requeue; and the replay of a failed one (`dream.db.dead_letters`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, cast
from uuid import uuid4

from sqlalchemy import Boolean, Row, Table, and_, bindparam, case, false, func, not_, or_, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from dream.db.batches import at_most, behind
from dream.db.clock import as_of, now
from dream.db.models import LEASED, NEVER_RESENT, RESENT, UNANNOUNCED, DreamTask
from dream.db.session import rows_hit
from dream.errors import DreamError, LeaseLost
from dream.messages.receipts import Receipt
from dream.messages.registry import DELETE_IMAGES
from dream.messages.states import Failure, TaskState
from dream.work.isolation import MAX_DEATHS

__all__ = [
    "MAX_DEATHS",
    "Claim",
    "Overdue",
    "Refusal",
    "add",
    "begin_deletion",
    "begun_deletions",
    "check_lease",
    "claim",
    "count_overdue",
    "finish",
    "mark_announced",
    "may_resend",
    "newest_of",
    "note_progress",
    "overdue",
    "progress",
    "receipt_of",
    "refusal",
    "renew",
    "replace_args",
    "requeue",
    "retries_of",
    "retry_later",
    "revoke",
    "to_send",
    "unannounced",
    "undo_resend",
]

#: From this death on a task runs alone, so that no other task can cause its last death.
SUSPECT_DEATHS = MAX_DEATHS - 1
_tasks = cast("Table", DreamTask.__table__)


@dataclass(frozen=True)
class Claim:
    """A run's right to work on its task, valid while the row has its lease token."""

    task_id: str
    token: str
    name: str
    args: tuple[Any, ...]
    attempts: int
    deaths: int
    has_expired: bool = False


class Resent(Protocol):
    """The fields of a task that decide whether it is sent again."""

    @property
    def id(self) -> str: ...
    @property
    def resends(self) -> int: ...
    @property
    def resent_at(self) -> datetime | None: ...


class Refusal(StrEnum):
    """The reason why a task cannot be claimed."""

    #: It has no row: its transaction was rolled back, or its row was removed after its time.
    UNKNOWN = "unknown"
    #: It has no row, and its message is young: its transaction may not be visible yet.
    NOT_VISIBLE = "not_visible"
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
    receipt: Receipt | None = None,
) -> DreamTask:
    """Write a new task's row.

    Parameters:
      due_in_s: seconds from now, by the database's clock, before which no run may begin.
      expires_in_s: seconds from now after which no run may begin; None if it never expires.
      queue: the queue (without prefix) on which it runs; None means the task's own.
      receipt: the answer to its request.
    """
    expires_at = None if expires_in_s is None else now(expires_in_s)
    task = DreamTask(
        id=task_id,
        name=name,
        args=list(args),
        due_at=now(due_in_s),
        expires_at=expires_at,
        queue=queue,
        receipt=receipt,
    )
    session.add(task)
    return task


def _is_unfinished() -> Any:
    return _tasks.c.state.in_((TaskState.QUEUED, TaskState.RUNNING))


def _is_free() -> Any:
    return or_(_tasks.c.lease_token.is_(None), _tasks.c.lease_expires_at <= now())


def _deaths() -> Any:
    """The deaths of a free task: an expired lease that no run released is one more."""
    return _tasks.c.deaths + case((_tasks.c.lease_token.is_not(None), 1), else_=0)


# Statements of every run are built once, and on the table: to build one costs more than to run it.
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
_CHECK = (
    update(_tasks)
    .where(_tasks.c.id == bindparam("task"), _tasks.c.lease_token == bindparam("token"))
    .values(resends=0)
    .returning(_tasks.c.id)
)
_RELEASE = _CHECK.values(lease_token=None, lease_expires_at=None)
_FINISH = _RELEASE.values(finished_at=now())
_ANNOUNCE = (
    update(_tasks)
    .where(_tasks.c.id == bindparam("task"), _tasks.c.finished_at == bindparam("ended_at"))
    .values(announced_at=func.coalesce(_tasks.c.announced_at, now()))
)

#: A deletion whose pictures are hidden: since its acceptance if it has no expiry, else since its first run.
_HAS_BEGUN = and_(DreamTask.name == DELETE_IMAGES, DreamTask.expires_at.is_(None))


def claim(session: Session, task_id: str, lease_s: float, *, alone: bool = True) -> Claim | None:
    """Take the task if it is due and free; an expired lease found here is a death of its last run.

    Parameters:
      alone: whether this process runs no other task; a task that may have killed two workers is taken only then.
    """
    token = uuid4().hex
    row = session.execute(_CLAIM, {"task": task_id, "token": token, "lease_s": lease_s, "alone": alone}).first()
    if row is None:
        return None
    name, args, attempts, deaths, has_expired = row
    return Claim(task_id, token, name, tuple(args), attempts, deaths, bool(has_expired))


def refusal(session: Session, task_id: str) -> tuple[Refusal, float]:
    """The reason why `claim` just returned None, and the seconds after which it may succeed."""
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


def check_lease(session: Session, claim: Claim) -> None:
    """Check the lease and lock the row: the rest of the transaction is written only while this run has the lease.

    Raises:
      LeaseLost: another run has the task, or it is finished.
    """
    _write(session, claim, _CHECK)


def begin_deletion(session: Session, claim: Claim) -> None:
    """Check the lease as `check_lease`; from now on the deletion neither expires nor can be revoked.

    Raises:
      LeaseLost: another run has the task, or it is finished.
    """
    _write(session, claim, _CHECK, expires_at=None)


def _write(session: Session, claim: Claim, statement: ReturningUpdate[Any], **values: Any) -> None:
    if session.execute(statement, {"task": claim.task_id, "token": claim.token, **values}).first() is None:
        raise LeaseLost(f"task {claim.task_id} is claimed by another run")


def renew(session: Session, tokens: Iterable[str], lease_s: float) -> set[str]:
    """Make these leases last `lease_s` from now; returns the tokens that still stand."""
    held = text(LEASED), DreamTask.lease_token.in_(list(tokens))
    # A row that its run has locked is left for the next time: to wait for it would let all the others expire.
    free = session.scalars(select(DreamTask.id).where(*held).with_for_update(skip_locked=True)).all()
    renewed = update(DreamTask).where(DreamTask.id.in_(free), *held).values(lease_expires_at=now(lease_s))
    session.execute(renewed.execution_options(synchronize_session=False))
    standing = session.scalars(select(DreamTask.lease_token).where(*held))
    return {token for token in standing if token is not None}


def replace_args(session: Session, claim: Claim, args: Sequence[Any]) -> None:
    """Write other arguments of the same meaning, while this run has the lease."""
    _write(session, claim, _CHECK, args=list(args))


def progress(session: Session, claim: Claim) -> Any:
    """The progress that earlier runs of the task have noted; None at the first run."""
    return session.scalar(select(_tasks.c.result).where(_tasks.c.id == claim.task_id))


def note_progress(session: Session, claim: Claim, result: Any) -> None:
    """Write the task's result so far, while this run has the lease: the next run continues from it.

    Raises:
      LeaseLost: another run has the task, or it is finished.
    """
    _write(session, claim, _CHECK, result=result)


def retry_later(session: Session, claim: Claim, failure: Failure, delay_s: float) -> int:
    """Count a failed run and free the task until `delay_s` from now; returns the attempts so far."""
    attempts = claim.attempts + 1
    again = {"state": TaskState.QUEUED, "attempts": attempts, **failure._asdict()}
    _write(session, claim, _RELEASE.values(due_at=now(delay_s)), **again)
    return attempts


def retries_of(session: Session, task_ids: Collection[str]) -> dict[str, tuple[int, datetime]]:
    """The failed attempts, and the time of the next one, of those tasks that wait for another attempt."""
    if not task_ids:
        return {}
    rows = session.execute(
        select(_tasks.c.id, _tasks.c.attempts, _tasks.c.due_at).where(
            _tasks.c.id.in_(task_ids), _tasks.c.state == TaskState.QUEUED, _tasks.c.attempts > 0
        )
    )
    return {task_id: (attempts, due_at) for task_id, attempts, due_at in rows}


def requeue(session: Session, claim: Claim) -> None:
    """Free the task at once; neither an attempt nor a death."""
    _write(session, claim, _RELEASE.values(due_at=now()), state=TaskState.QUEUED)


def finish(
    session: Session,
    claim: Claim,
    state: TaskState,
    *,
    result: Any = None,
    failure: Failure | None = None,
) -> None:
    """Write the outcome, once.

    Parameters:
      failure: the reason, if it did not succeed or only partly.

    Raises:
      LeaseLost: another run has the task, or it is finished.
      DreamError: the state is no outcome.
    """
    if not state.is_terminal:
        raise DreamError(f"a task cannot end as {state}")
    attempts = claim.attempts + (state is TaskState.FAILED)
    ended = {"state": state, "attempts": attempts, "result": result, **(failure or Failure())._asdict()}
    _write(session, claim, _FINISH, **ended)


def revoke(session: Session, task_ids: Collection[str]) -> int:
    """Let the tasks that have not ended expire now, except deletions that have begun; returns their number.

    The next claim ends such a task as revoked. A run that has begun continues.
    """
    unended = update(DreamTask).where(
        DreamTask.id.in_(task_ids), DreamTask.state.in_((TaskState.QUEUED, TaskState.RUNNING)), not_(_HAS_BEGUN)
    )
    return rows_hit(session, unended.values(expires_at=now()))


def begun_deletions(session: Session, task_ids: Collection[str]) -> set[str]:
    """The deletions among these tasks that no revocation stops."""
    return set(session.scalars(select(DreamTask.id).where(DreamTask.id.in_(task_ids), _HAS_BEGUN)))


def receipt_of(session: Session, task_id: str) -> tuple[list[Any], Receipt] | None:
    """The arguments and the receipt of a task; None if there is no such task, or if it has no receipt."""
    row = session.execute(select(_tasks.c.args, _tasks.c.receipt).where(_tasks.c.id == task_id)).first()
    return None if row is None or row.receipt is None else (row.args, row.receipt)


# --- after the end


def unannounced(session: Session, after_s: float, limit: int) -> Sequence[Row[str]]:
    """The `id` of tasks that ended `after_s` ago or earlier and are not announced, the longest ended first."""
    return session.execute(
        select(DreamTask.id)
        .where(text(UNANNOUNCED), DreamTask.finished_at <= as_of(-after_s))
        .order_by(DreamTask.finished_at)
        .limit(at_most(limit))
    ).all()


def mark_announced(session: Session, task_id: str, ended_at: datetime | None) -> None:
    """Note that the event of the task's end at `ended_at` is in the stream; an earlier note keeps its time.

    If the task was replayed meanwhile, nothing changes: the event of its next end is not in the stream yet.
    """
    session.execute(_ANNOUNCE, {"task": task_id, "ended_at": ended_at})


# --- for the sweep


@dataclass(frozen=True)
class Overdue:
    """An unfinished task past its due time without a run. Its arguments are not read."""

    id: str
    name: str
    queue: str | None
    attempts: int
    resends: int
    resent_at: datetime | None
    due_at: datetime


def overdue(
    session: Session, overdue_s: float, *, limit: int = 1000, after: Overdue | None = None, gap_s: float = 0
) -> list[Overdue]:
    """Unfinished tasks without a run, past their due time by `overdue_s`; first the one that was not sent for longest.

    Parameters:
      limit: the most tasks.
      after: the last task of the page before; None for the first page.
      gap_s: leave out tasks that were sent again within these seconds.
    """
    found: list[Overdue] = []
    if after is None or after.resent_at is None:
        query = _overdue(NEVER_RESENT, overdue_s).order_by(_tasks.c.due_at, _tasks.c.id)
        if after is not None:
            query = query.where(behind((_tasks.c.due_at, after.due_at), (_tasks.c.id, after.id)))
        found += [Overdue(*row) for row in session.execute(query.limit(at_most(limit)))]
        after = None
    if len(found) < limit:
        query = _overdue(RESENT, overdue_s).order_by(_tasks.c.resent_at, _tasks.c.id)
        query = query.where(_tasks.c.resent_at <= as_of(-gap_s))
        if after is not None:
            query = query.where(behind((_tasks.c.resent_at, after.resent_at), (_tasks.c.id, after.id)))
        found += [Overdue(*row) for row in session.execute(query.limit(at_most(limit - len(found))))]
    return found


_OF_OVERDUE = [_tasks.c[name] for name in ("id", "name", "queue", "attempts", "resends", "resent_at", "due_at")]


def _overdue(which: str, overdue_s: float, columns: Sequence[Any] = _OF_OVERDUE) -> Any:
    is_free = or_(_tasks.c.lease_token.is_(None), _tasks.c.lease_expires_at <= as_of())
    return select(*columns).where(text(which), _tasks.c.due_at <= as_of(-overdue_s), is_free)


def count_overdue(session: Session, overdue_s: float) -> Counter[tuple[str, str | None]]:
    """The number of tasks that `overdue` finds, by name and queue."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for which in (NEVER_RESENT, RESENT):
        query = _overdue(which, overdue_s, [_tasks.c.name, _tasks.c.queue, func.count()])
        for name, queue, count in session.execute(query.group_by(_tasks.c.name, _tasks.c.queue)):
            counts[name, queue] += count
    return counts


def to_send(session: Session, task_ids: Sequence[str]) -> Sequence[DreamTask]:
    """The tasks of these ids, with their arguments, in any order."""
    return session.scalars(select(DreamTask).where(DreamTask.id.in_(task_ids))).all()


def may_resend(session: Session, task: Resent, gap_s: float) -> bool:
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


def undo_resend(session: Session, task: Resent) -> None:
    """Undo `may_resend` for a task that could not be sent; `task` is as it was read before."""
    session.execute(
        update(DreamTask)
        .where(DreamTask.id == task.id, DreamTask.resends == task.resends + 1)
        .values(resends=task.resends, resent_at=task.resent_at)
        .execution_options(synchronize_session=False)
    )


def newest_of(session: Session, prefix: str) -> DreamTask | None:
    """The scheduled task with the newest date: its id is this prefix and a date."""
    # A range, because an index serves LIKE only where the database sorts by bytes; digits sort alike everywhere.
    dated = DreamTask.id.between(f"{prefix}0000-00-00", f"{prefix}9999-99-99")
    query = select(DreamTask).where(dated, DreamTask.id.startswith(prefix, autoescape=True))
    return session.scalar(query.order_by(DreamTask.id.desc()).limit(at_most(1)))

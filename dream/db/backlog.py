"""Counts of unfinished and failed tasks, for those who watch dream. Each is bounded, however many rows there are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import Select, Subquery, Table, func, or_, select, text

from dream.db.batches import at_most
from dream.db.clock import as_of, minute_of, now
from dream.db.models import ANNOUNCED, FAILED, LEASED, NEVER_RESENT, PENDING, RESENT, DreamImage, DreamTask
from dream.messages.states import TaskState

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "MOST_COUNTED",
    "Counts",
    "Delayed",
    "Minutes",
    "Waiting",
    "counts",
    "delayed",
    "ended",
    "ended_by_minute",
    "last_success",
    "waiting",
]

#: Rows beyond this number are not counted: a look every few seconds must stay cheap.
MOST_COUNTED = 10_000
_tasks = cast("Table", DreamTask.__table__)


class Waiting(NamedTuple):
    """Tasks of one name and queue that are due and have no run.

    Parameters:
      name: of the task.
      queue: the queue that it was sent to, without prefix; None means the task's own.
      tasks: at most `MOST_COUNTED`.
      oldest_age_s: seconds since the oldest was due.
    """

    name: str
    queue: str | None
    tasks: int
    oldest_age_s: float


class Delayed(NamedTuple):
    """Tasks of one name and queue that are due later: they wait for a retry, or for the time that their caller gave.

    Parameters:
      tasks: at most `MOST_COUNTED`.
      first_at: the time at which the first is due.
      last_at: the time at which the last of the counted tasks is due.
    """

    name: str
    queue: str | None
    tasks: int
    first_at: datetime
    last_at: datetime


class Minutes(NamedTuple):
    """Ended tasks by minute.

    Parameters:
      now: the minute that is not over, in minutes since the epoch.
      counts: by minute and state.
      partial: the minute of which only a part was counted, because `MOST_COUNTED` tasks are newer; None if all were.
    """

    now: int
    counts: dict[int, dict[TaskState, int]]
    partial: int | None


class Counts(NamedTuple):
    """Numbers of rows, each at most `MOST_COUNTED`: tasks in a run, failed tasks, unfinished pictures."""

    running: int
    failed: int
    pictures: int


def waiting(session: Session) -> list[Waiting]:
    """Due tasks without a run, among them those whose worker died, by name and queue.

    If more than `MOST_COUNTED` wait, the oldest of them count.
    """
    found: dict[tuple[str, str | None], Waiting] = {}
    for which, order in ((NEVER_RESENT, _tasks.c.due_at), (RESENT, _tasks.c.resent_at)):
        is_free = or_(_tasks.c.lease_token.is_(None), _tasks.c.lease_expires_at <= as_of())
        first = (
            select(_tasks.c.name, _tasks.c.queue, _tasks.c.due_at)
            .where(text(which), _tasks.c.due_at <= as_of(), is_free)
            .order_by(order, _tasks.c.id)
            .limit(at_most(MOST_COUNTED))
            .subquery()
        )
        query = select(first.c.name, first.c.queue, func.count(), func.min(first.c.due_at), now().label("clock"))
        for name, queue, count, oldest, clock in session.execute(query.group_by(first.c.name, first.c.queue)):
            before = found.get((name, queue), Waiting(name, queue, 0, 0.0))
            age_s = max(before.oldest_age_s, (clock - oldest).total_seconds())
            found[name, queue] = Waiting(name, queue, before.tasks + count, age_s)
    return list(found.values())


def delayed(session: Session) -> list[Delayed]:
    """Tasks that are due later, by name and queue; of more than `MOST_COUNTED` the first ones."""
    found: dict[tuple[str, str | None], Delayed] = {}
    columns = _tasks.c.name, _tasks.c.queue, _tasks.c.due_at
    never = select(*columns).where(text(NEVER_RESENT), _tasks.c.due_at > as_of()).order_by(_tasks.c.due_at, _tasks.c.id)
    # No index has the due times of these, so few of them are looked at.
    resent = select(*columns).where(text(RESENT)).order_by(_tasks.c.resent_at.desc(), _tasks.c.id.desc())
    for query in (never.limit(at_most(MOST_COUNTED)), resent.limit(at_most(MOST_COUNTED))):
        few = query.subquery()
        grouped = select(few.c.name, few.c.queue, func.count(), func.min(few.c.due_at), func.max(few.c.due_at))
        for name, queue, count, first, last in session.execute(
            grouped.where(few.c.due_at > as_of()).group_by(few.c.name, few.c.queue)
        ):
            before = found.get((name, queue), Delayed(name, queue, 0, first, last))
            found[name, queue] = Delayed(
                name, queue, before.tasks + count, min(before.first_at, first), max(before.last_at, last)
            )
    return list(found.values())


def counts(session: Session) -> Counts:
    """Count rows by their indexes."""
    running = select(_tasks.c.id).where(text(LEASED), _tasks.c.lease_expires_at > as_of())
    failed = select(_tasks.c.id).where(text(FAILED))
    pictures = select(DreamImage.id).where(text(PENDING))
    return Counts(*(_count(session, query) for query in (running, failed, pictures)))


def ended(session: Session, within_s: float) -> dict[TaskState, int]:
    """The announced tasks that ended within that time, by state; at most `MOST_COUNTED`, the newest."""
    newest = _newest_ended(within_s)
    found = session.execute(select(newest.c.state, func.count()).group_by(newest.c.state))
    return {TaskState(state): count for state, count in found}


def ended_by_minute(session: Session, within_s: float) -> Minutes:
    """The announced tasks that ended within that time, by minute and state; at most `MOST_COUNTED`, the newest."""
    newest = _newest_ended(within_s)
    minute = minute_of(newest.c.finished_at).label("minute")
    found: dict[int, dict[TaskState, int]] = {}
    for at, state, count in session.execute(
        select(minute, newest.c.state, func.count()).group_by(minute, newest.c.state)
    ):
        found.setdefault(at, {})[TaskState(state)] = count
    is_full = sum(sum(each.values()) for each in found.values()) >= MOST_COUNTED
    return Minutes(session.scalars(select(minute_of(now()))).one(), found, min(found) if is_full else None)


def _newest_ended(within_s: float) -> Subquery:
    query = select(_tasks.c.state, _tasks.c.finished_at)
    query = query.where(text(ANNOUNCED), _tasks.c.finished_at > as_of(-within_s))
    return query.order_by(_tasks.c.finished_at.desc(), _tasks.c.id.desc()).limit(at_most(MOST_COUNTED)).subquery()


def _count(session: Session, query: Select[Any]) -> int:
    few = query.limit(at_most(MOST_COUNTED)).subquery()
    return session.scalar(select(func.count()).select_from(few)) or 0


def last_success(session: Session, prefix: str) -> datetime | None:
    """The time at which a scheduled task succeeded last: its id is this prefix and a date."""
    dated = _tasks.c.id.between(f"{prefix}0000-00-00", f"{prefix}9999-99-99")
    newest: Any = func.max(_tasks.c.finished_at)
    row = session.execute(select(newest).where(dated, _tasks.c.state == TaskState.SUCCEEDED)).one()
    return cast("datetime | None", row[0])

"""Counts of unfinished and failed tasks, for those who watch dream. Each is bounded, however many rows there are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import Select, Table, func, or_, select, text

from dream.db.batches import at_most
from dream.db.clock import as_of, now
from dream.db.models import ANNOUNCED, FAILED, LEASED, NEVER_RESENT, PENDING, RESENT, DreamImage, DreamTask
from dream.messages.states import TaskState

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["MOST_COUNTED", "Counts", "Waiting", "counts", "ended", "last_success", "waiting"]

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


def counts(session: Session) -> Counts:
    """Count rows by their indexes."""
    running = select(_tasks.c.id).where(text(LEASED), _tasks.c.lease_expires_at > as_of())
    failed = select(_tasks.c.id).where(text(FAILED))
    pictures = select(DreamImage.id).where(text(PENDING))
    return Counts(*(_count(session, query) for query in (running, failed, pictures)))


def ended(session: Session, within_s: float) -> dict[TaskState, int]:
    """The announced tasks that ended within that time, by state; at most `MOST_COUNTED`, the newest."""
    query = select(_tasks.c.state).where(text(ANNOUNCED), _tasks.c.finished_at > as_of(-within_s))
    newest = query.order_by(_tasks.c.finished_at.desc(), _tasks.c.id.desc()).limit(at_most(MOST_COUNTED)).subquery()
    found = session.execute(select(newest.c.state, func.count()).group_by(newest.c.state))
    return {TaskState(state): count for state, count in found}


def _count(session: Session, query: Select[Any]) -> int:
    few = query.limit(at_most(MOST_COUNTED)).subquery()
    return session.scalar(select(func.count()).select_from(few)) or 0


def last_success(session: Session, prefix: str) -> datetime | None:
    """The time at which a scheduled task succeeded last: its id is this prefix and a date."""
    dated = _tasks.c.id.between(f"{prefix}0000-00-00", f"{prefix}9999-99-99")
    newest: Any = func.max(_tasks.c.finished_at)
    row = session.execute(select(newest).where(dated, _tasks.c.state == TaskState.SUCCEEDED)).one()
    return cast("datetime | None", row[0])

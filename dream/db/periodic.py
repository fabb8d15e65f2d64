"""Rows of periodic tasks: one scheduler takes each run, and the row names the run until the broker has it.

ran_at ──take──► ran_at, task_id ──sent──► ran_at
                      ↻ take_over: the scheduler that took it has not sent it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from dream.db.batches import at_most
from dream.db.clock import now
from dream.db.models import DreamPeriodic
from dream.db.session import rows_hit

__all__ = ["add", "newest", "note_seen", "ran_at", "sent", "take", "take_over"]


def add(session: Session, name: str) -> None:
    """Begin to count from now.

    Raises:
      IntegrityError: the entry has a row; another scheduler may have just added it.
    """
    session.add(DreamPeriodic(name=name))
    session.flush()


def note_seen(session: Session, names: Collection[str], every_s: float) -> None:
    """Note that these entries are in a schedule, at most once in `every_s`; `retention` reads it."""
    is_stale = or_(DreamPeriodic.seen_at.is_(None), DreamPeriodic.seen_at <= now(-every_s))
    session.execute(
        update(DreamPeriodic)
        .where(DreamPeriodic.name.in_(names), is_stale)
        .values(seen_at=now())
        .execution_options(synchronize_session=False)
    )


def ran_at(session: Session, names: Collection[str]) -> dict[str, datetime]:
    """The time from which the next run of each entry is counted; entries without a row are left out."""
    known = select(DreamPeriodic.name, DreamPeriodic.ran_at).where(DreamPeriodic.name.in_(names))
    return {row.name: row.ran_at for row in session.execute(known)}


def newest(session: Session, limit: int) -> list[tuple[str, datetime]]:
    """Entries of every schedule with the time from which their next run is counted, the newest first."""
    query = select(DreamPeriodic.name, DreamPeriodic.ran_at).order_by(DreamPeriodic.ran_at.desc(), DreamPeriodic.name)
    return [(row.name, row.ran_at) for row in session.execute(query.limit(at_most(limit)))]


def take(session: Session, name: str, counted_from: datetime, due_at: datetime, task_id: str) -> bool:
    """Take the run after `counted_from`; False if another scheduler has it, or if the run before is not sent.

    Parameters:
      due_at: the time from which the next run is counted.
      task_id: the id of this run.
    """
    mine = (
        update(DreamPeriodic)
        .where(DreamPeriodic.name == name, DreamPeriodic.ran_at == counted_from, DreamPeriodic.task_id.is_(None))
        .values(ran_at=due_at, task_id=task_id, taken_at=now())
    )
    return rows_hit(session, mine) == 1


def sent(session: Session, name: str, task_id: str) -> None:
    """Note that the broker has the run."""
    session.execute(
        update(DreamPeriodic)
        .where(DreamPeriodic.name == name, DreamPeriodic.task_id == task_id)
        .values(task_id=None, taken_at=None)
    )


def take_over(session: Session, names: Collection[str], after_s: float) -> Mapping[str, str]:
    """Take over the runs that were taken that long ago and not sent; return them by entry."""
    left = select(DreamPeriodic).where(
        DreamPeriodic.name.in_(names), DreamPeriodic.task_id.is_not(None), DreamPeriodic.taken_at < now(-after_s)
    )
    taken: dict[str, str] = {}
    for row in session.scalars(left.with_for_update(skip_locked=True)):
        taken[row.name] = row.task_id or ""
        row.taken_at = now()
    session.flush()
    return taken

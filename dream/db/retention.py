"""Remove rows past their time, in batches. Rows that are open, unannounced or not swept yet stay, however old they are.

Pictures outlive their task: only tombstones of deleted pictures are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, and_, delete, or_, select, text, update
from sqlalchemy.orm import Session

from dream.db.batches import at_most, behind
from dream.db.clock import as_of, now
from dream.db.models import ANNOUNCED, FAILED, TOMBSTONES, DreamImage, DreamMark, DreamPeriodic, DreamTask
from dream.db.session import rows_hit
from dream.messages.registry import DELETE_IMAGES, REGISTRY
from dream.messages.states import ImageState, TaskState

__all__ = ["OldTasks", "OldTombstones", "delete_old_entries", "was_pruned"]

#: The row of a timetable's run keeps it from being submitted again on its date, in any time zone.
_TIMETABLE_S = 3 * 86400
_DAILY = [kind.name for kind in REGISTRY if kind.entry]
#: The shortest age of a forgotten entry: schedulers note each entry of their schedules once an hour.
_UNSEEN_S = 2 * 86400
#: Ids in one statement.
_AT_ONCE = 500
#: The mark's name: rows of tasks that ended before its moment may be gone.
_PRUNED = "tasks_pruned"
_tasks = cast("Table", DreamTask.__table__)
_images = cast("Table", DreamImage.__table__)


class _Old:
    """Walks over rows older than `ttl_s`, in the order of their index."""

    def __init__(self, ttl_s: float, key: Sequence[Any]) -> None:
        self._ttl_s = ttl_s
        self._key = key
        self._behind: tuple[Any, ...] | None = None
        self._before: datetime | None = None

    def _page(self, session: Session, count: int, condition: str, *columns: Any) -> Sequence[Any]:
        """The next `count` rows."""
        since, row_id = self._key
        if self._before is None:
            self._before = session.scalar(select(as_of(-self._ttl_s)))
        query = select(since, row_id, *columns).where(text(condition), since <= self._before)
        if self._behind is not None:
            query = query.where(behind(*zip(self._key, self._behind, strict=True)))
        page = session.execute(query.order_by(since, row_id).limit(at_most(count))).all()
        if page:
            self._behind = (page[-1][0], page[-1][1])
        return page

    def _delete(self, session: Session, ids: Sequence[Any], *conditions: Any) -> int:
        _, row_id = self._key
        parts = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
        return sum(rows_hit(session, delete(row_id.table).where(row_id.in_(part), *conditions)) for part in parts)


class OldTasks(_Old):
    """Tasks that ended longer ago than `ttl_s`.

    Parameters:
      is_failed: True for failed tasks, False for the others.
    """

    def __init__(self, ttl_s: float, *, is_failed: bool) -> None:
        super().__init__(ttl_s, (_tasks.c.finished_at, _tasks.c.id))
        self._is_failed = is_failed

    def delete(self, session: Session, count: int) -> int | None:
        """Look at the next `count` tasks and delete those that may go; returns how many, None at the end."""
        page = self._page(session, count, FAILED if self._is_failed else ANNOUNCED, _tasks.c.name, _tasks.c.state)
        if not page:
            return None
        kept = _undone(session, [row.id for row in page if _is_undone_deletion(row)])
        others = [each for each in TaskState if not each.is_terminal or (each is TaskState.FAILED) != self._is_failed]
        is_recent = and_(_tasks.c.name.in_(_DAILY), _tasks.c.finished_at > now(-_TIMETABLE_S))
        ids = [row.id for row in page if row.id not in kept]
        # The page's condition again, because a replay may have come between. No index has this form of it, so the
        # database looks the rows up by their ids.
        is_ended = and_(_tasks.c.state.not_in(others), _tasks.c.announced_at.is_not(None))
        deleted = self._delete(session, ids, is_ended, ~is_recent, _has_nothing_left())
        if deleted:
            _advance(session, _PRUNED, page[-1].finished_at)
        return deleted


def _has_nothing_left() -> Any:
    """Whether every picture of a task has ended, has no staged bytes, and is swept if it must be."""
    open_states = (ImageState.PENDING, ImageState.PROCESSING, ImageState.DELETING)
    is_left = or_(
        _images.c.staging_key.is_not(None),
        _images.c.state.in_(open_states),
        and_(_images.c.state.in_((ImageState.DELETED, ImageState.FAILED)), ~_images.c.swept),
    )
    # A scalar subquery, because the planner would turn NOT EXISTS into a join with the whole table.
    left = select(_images.c.id).where(_images.c.task_id == _tasks.c.id, is_left).limit(at_most(1))
    return left.correlate(_tasks).scalar_subquery().is_(None)


def _has_run_for_good() -> Any:
    """Whether a picture's task can never run again; a failed one can, by a replay."""
    may_run = _tasks.c.state.in_((TaskState.QUEUED, TaskState.RUNNING, TaskState.FAILED))
    task = select(_tasks.c.id).where(_tasks.c.id == _images.c.task_id, may_run).limit(at_most(1))
    return task.correlate(_images).scalar_subquery().is_(None)


def _is_undone_deletion(row: Any) -> bool:
    return row.name == DELETE_IMAGES and row.state in (TaskState.FAILED, TaskState.REVOKED)


def _undone(session: Session, task_ids: Sequence[str]) -> set[str]:
    """The failed deletions whose dreams still have pictures to remove: only a replay would remove these."""
    undone: set[str] = set()
    for start in range(0, len(task_ids), _AT_ONCE):
        some = task_ids[start : start + _AT_ONCE]
        dreams = {
            task_id: args[0]
            for task_id, args in session.execute(select(_tasks.c.id, _tasks.c.args).where(_tasks.c.id.in_(some)))
            if isinstance(args, list) and args and isinstance(args[0], int)
        }
        is_waiting = and_(_images.c.dream_id.in_(set(dreams.values())), _images.c.state == ImageState.DELETING)
        waiting = set(session.scalars(select(_images.c.dream_id).where(is_waiting).distinct()))
        undone.update(task_id for task_id, dream_id in dreams.items() if dream_id in waiting)
    return undone


class OldTombstones(_Old):
    """Tombstones older than `ttl_s`, after the sweep has deleted their objects once more.

    A tombstone stays while its task may run again: that run would find no row, create one, and so restore the deleted
    picture.
    """

    def __init__(self, ttl_s: float) -> None:
        super().__init__(ttl_s, (_images.c.updated_at, _images.c.id))

    def delete(self, session: Session, count: int) -> int | None:
        """See `OldTasks.delete`."""
        page = self._page(session, count, TOMBSTONES)
        if not page:
            return None
        return self._delete(session, [row.id for row in page], _images.c.staging_key.is_(None), _has_run_for_good())


def delete_old_entries(session: Session, ttl_s: float) -> int:
    """Delete periodic entries that were in no schedule for `ttl_s`, at least for 2 days; returns how many."""
    unknown = update(DreamPeriodic).where(DreamPeriodic.seen_at.is_(None))  # written by an older release
    session.execute(unknown.values(seen_at=now()))
    old = delete(DreamPeriodic).where(
        DreamPeriodic.seen_at <= now(-max(ttl_s, _UNSEEN_S)), DreamPeriodic.task_id.is_(None)
    )
    return rows_hit(session, old)


def was_pruned(session: Session, task_id: str, born_at: datetime) -> bool:
    """Whether a task without a row, with a message from `born_at`, may have had a row that was removed.

    Its pictures would still be there. If a message is younger than the end of every removed task, its task is new.
    """
    if session.scalar(select(_images.c.id).where(_images.c.task_id == task_id).limit(at_most(1))) is not None:
        return True
    until = session.scalar(select(DreamMark.at).where(DreamMark.name == _PRUNED))
    return until is not None and born_at <= until


def _advance(session: Session, name: str, at: datetime) -> None:
    """Set a mark; it never goes back."""
    mark = session.get(DreamMark, name, with_for_update=True)
    if mark is None:
        session.add(DreamMark(name=name, at=at))
        session.flush()
    elif mark.at < at:
        mark.at = at
        session.flush()

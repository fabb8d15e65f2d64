"""Rows of remakes: which pictures a pass makes anew, the number of each remake, the switch, and old objects.

    begin: last_remake + 1 ─► objects under that number ─► switch: the row names them ─► sweep: first_remake = last

A pass is a mark with the moment of its beginning. A picture is done once its objects are newer, so a pass that was
interrupted goes on where it stopped, and no list of its pictures is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from dream.db.batches import at_most
from dream.db.clock import as_of, now
from dream.db.images import BY_AGE, Cursor, behind_age
from dream.db.models import OUTDATED, DreamImage, DreamMark, DreamTask
from dream.db.variants import locked
from dream.messages.states import ImageState, TaskState
from dream.variants import VariantSpec

__all__ = [
    "Chosen",
    "begin",
    "begin_pass",
    "count",
    "end_pass",
    "forget_done",
    "forget_old_objects",
    "outdated",
    "page",
    "states_of",
]

_images = cast("Table", DreamImage.__table__)


@dataclass(frozen=True)
class Chosen:
    """The pictures of a pass.

    Parameters:
      begun_at: the beginning of the pass; pictures whose objects are newer are done.
      dream_id: only the pictures of this dream; None means all.
      older_than: only pictures whose objects were made before this moment; None means all.
    """

    begun_at: datetime
    dream_id: int | None = None
    older_than: datetime | None = None

    def _conditions(self) -> list[Any]:
        made_at = func.coalesce(_images.c.made_at, _images.c.created_at)
        conditions = [_images.c.state == ImageState.COMPLETED]
        conditions.append(or_(_images.c.made_at.is_(None), _images.c.made_at < self.begun_at))
        if self.dream_id is not None:
            conditions.append(_images.c.dream_id == self.dream_id)
        if self.older_than is not None:
            conditions.append(made_at < self.older_than)
        return conditions


def begin_pass(session: Session, name: str) -> tuple[datetime, bool]:
    """The beginning of the pass of this name, and whether it is new."""
    mark = session.get(DreamMark, name, with_for_update=True)
    if mark is not None:
        return mark.at, False
    session.add(DreamMark(name=name, at=now()))
    session.flush()
    at = session.scalar(select(DreamMark.at).where(DreamMark.name == name))
    assert at is not None  # noqa: S101 (written just now)
    return at, True


def end_pass(session: Session, name: str) -> None:
    """Forget the pass: the next one of this name begins anew."""
    session.execute(delete(DreamMark).where(DreamMark.name == name))


def count(session: Session, chosen: Chosen) -> int:
    """The number of pictures that the pass has not made anew yet."""
    return session.scalar(select(func.count()).select_from(_images).where(*chosen._conditions())) or 0


def page(session: Session, chosen: Chosen, *, after: int, limit: int) -> Sequence[int]:
    """The ids of the next pictures, in the order of their ids."""
    query = select(_images.c.id).where(_images.c.id > after, *chosen._conditions())
    return session.scalars(query.order_by(_images.c.id).limit(at_most(limit))).all()


def states_of(session: Session, task_ids: Collection[str]) -> Mapping[str, TaskState]:
    """The states of the tasks that still have a row."""
    query = select(DreamTask.id, DreamTask.state).where(DreamTask.id.in_(list(task_ids)))
    return {task_id: TaskState(state) for task_id, state in session.execute(query)}


def forget_done(session: Session, task_ids: Collection[str]) -> None:
    """Remove the rows of tasks that have succeeded: a pass over a million pictures leaves no million rows."""
    done = DreamTask.state == TaskState.SUCCEEDED
    session.execute(delete(DreamTask).where(DreamTask.id.in_(list(task_ids)), done))


# --- one picture


def begin(session: Session, image_id: int, variants: Iterable[VariantSpec]) -> DreamImage | None:
    """Take the next number for objects of the picture, and note the variants that may get objects.

    Every key of that number is known from then on (`dream.storage.keys.keys_of`). No two runs have the same number, so
    a run that was paused overwrites nothing.

    Returns:
      The picture; None if it is not stored (any more).
    """
    image = locked(session, image_id)
    if image is None:
        return None
    image.last_remake = max(image.remakes, image.last_remake) + 1
    known = set(image.variant_names)
    image.wanted_variants = [*(image.wanted_variants or ()), *(each.row for each in variants if each.name not in known)]
    session.flush()
    return image


# --- objects of older remakes


def outdated(session: Session, for_s: float, limit: int, last: Cursor | None = None) -> Sequence[DreamImage]:
    """Pictures that may have objects of older remakes, and that no run has touched for these seconds.

    Parameters:
      last: the last picture of the page before.
    """
    query = select(DreamImage).where(text(OUTDATED), DreamImage.updated_at <= as_of(-for_s), behind_age(last))
    # In the order of the index: PostgreSQL expects a third of all rows to meet the condition, and would scan them all.
    return session.scalars(query.order_by(*BY_AGE).limit(at_most(limit))).all()


def forget_old_objects(session: Session, swept: Mapping[int, int]) -> None:
    """Note that the objects of all remakes before these are deleted, by the ids of their pictures."""
    for image_id, last in swept.items():
        unchanged = (_images.c.id == image_id, _images.c.last_remake == last)
        session.execute(update(_images).where(*unchanged).values(first_remake=last, updated_at=_images.c.updated_at))

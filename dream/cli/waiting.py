"""Waits for accepted work by looking at its rows, which are the truth: events can be lost, rows cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dream.messages import ImageState, TaskState, owners_line

if TYPE_CHECKING:
    from dream.db import Database, DreamImage

__all__ = ["Seen", "watch_deletion", "watch_upload"]

_LOOK_EVERY_S = 0.2
#: A database that restarts is waited for; one that stays away is not.
_PATIENCE_S = 30.0

_UPLOADED = frozenset({ImageState.COMPLETED, ImageState.FAILED, ImageState.DELETING, ImageState.DELETED})
_REMOVED = frozenset({ImageState.DELETED})


@dataclass(frozen=True)
class Seen:
    """What the rows of a task said at one moment.

    Parameters:
      images: in the order of the task.
      is_ended: nothing more will happen to them.
      trouble: why the task has to be run again, where it has; it is due later.
      failure: why the task as a whole has failed, where it has.
      is_untouched: no worker has begun with it yet.
    """

    images: Sequence[DreamImage]
    is_ended: bool
    trouble: str | None = None
    failure: str | None = None
    is_untouched: bool = False


def watch_upload(database: Database, task_id: str, timeout_s: float | None = None) -> Iterator[Seen]:
    """What an upload's rows say, again and again, until it has ended or the time is over.

    Raises:
      SQLAlchemyError: the database stays away.
    """
    return _watch(database, task_id, None, _UPLOADED, timeout_s)


def watch_deletion(
    database: Database, task_id: str, image_ids: Sequence[int], timeout_s: float | None = None
) -> Iterator[Seen]:
    """What the rows of pictures that are being deleted say; as `watch_upload`."""
    return _watch(database, task_id, image_ids, _REMOVED, timeout_s)


def _watch(
    database: Database,
    task_id: str,
    image_ids: Sequence[int] | None,
    last_states: frozenset[ImageState],
    timeout_s: float | None,
) -> Iterator[Seen]:
    from sqlalchemy.exc import OperationalError

    begun = answered = time.monotonic()
    while True:
        try:
            seen = _look(database, task_id, image_ids, last_states)
            answered = time.monotonic()
        except OperationalError:
            # A missing table is such an error too, and no restart brings it.
            if answered == begun or time.monotonic() - answered > _PATIENCE_S:
                raise
        else:
            yield seen
            if seen.is_ended:
                return
        if timeout_s is not None and time.monotonic() - begun >= timeout_s:
            return
        time.sleep(_LOOK_EVERY_S)


def _look(
    database: Database, task_id: str, image_ids: Sequence[int] | None, last_states: frozenset[ImageState]
) -> Seen:
    from dream.db import DreamImage, DreamTask, images

    with database.read() as session:
        # The task first: once it has ended, its images say their last.
        task = session.get(DreamTask, task_id)
        if image_ids is None:
            rows = list(images.of_task(session, task_id))
        else:
            rows = [row for each in image_ids if (row := session.get(DreamImage, each)) is not None]
    is_ended = task is None or task.state.is_terminal or all(row.state in last_states for row in rows)
    waits = task is not None and not is_ended and task.attempts > 0 and task.lease_token is None
    failed = task is not None and task.state in (TaskState.FAILED, TaskState.REVOKED)
    is_untouched = task is not None and task.state is TaskState.QUEUED and not task.attempts and not task.deaths
    error = owners_line(task.error) or None if task is not None else None
    return Seen(
        rows,
        is_ended,
        trouble=error if waits else None,
        failure=error if failed else None,
        is_untouched=is_untouched and not is_ended,
    )

"""Replay and purge failed tasks, for `dream dlq` and the page of operators."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dream.db import dead_letters
from dream.errors import DreamError, ResultsUnavailable
from dream.storage import new_key_stem
from dream.storage.keys import places_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dream.producer import Producer

__all__ = ["purge", "replay"]


def replay(producer: Producer, task_id: str) -> bool:
    """Run a failed task again from the start, with all retries.

    Returns:
      False if no failed task has that id (any more).

    Raises:
      SQLAlchemyError: the database is away.
    """
    with producer.database.begin() as session:
        task = dead_letters.revive(session, task_id, new_key_stem)
    if task is None:
        return False
    with suppress(ResultsUnavailable):  # the next end overwrites it
        producer.connections.results.forget(task_id)
    producer.send_again(task)
    return True


def purge(producer: Producer, task_id: str) -> Sequence[DreamError] | None:
    """Delete a failed task, its pictures' rows, and their bytes.

    Returns:
      The errors of bytes that stay: the nightly sweep removes staged ones. None if no failed task has that id.

    Raises:
      DreamError: the object store did not answer; bytes stay.
      SQLAlchemyError: the database is away.
    """
    # Rows first: a task that was replayed meanwhile keeps its bytes.
    with producer.database.begin() as session:
        pictures = dead_letters.forget(session, task_id)
    if pictures is None:
        return None
    unstaged = producer.connections.staging.delete(each.staging_key for each in pictures if each.staging_key)
    failed = producer.storage.delete_places(set().union(*map(places_of, pictures)))
    return [*unstaged.values(), *failed.values()]

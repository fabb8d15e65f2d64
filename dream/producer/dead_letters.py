"""Replay and purge failed tasks, for `dream dlq` and the page of operators."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dream.db import dead_letters, images
from dream.errors import DreamError, InvalidArguments, ResultsUnavailable
from dream.messages.arguments import check_deletion
from dream.messages.registry import DELETE_IMAGES
from dream.messages.states import ImageState
from dream.runs.targets import resolve
from dream.storage import new_key_stem
from dream.storage.keys import places_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from dream.db import DreamTask
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["purge", "reopen", "replay"]


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
    reopen(producer, task_id)
    producer.send_again(task)
    return True


def reopen(producer: Producer, task_id: str) -> None:
    """Let a task that runs again have events and a result again."""
    with suppress(ResultsUnavailable):  # the next end overwrites it
        producer.connections.results.forget(task_id)
    producer.connections.publisher.reopen(task_id)


def purge(producer: Producer, task_id: str) -> Sequence[DreamError] | None:
    """Delete a failed task, and the bytes of its pictures.

    The pictures of a failed upload, and those that a failed deletion has hidden, get tombstones: the nightly sweep
    deletes bytes that stay.

    Returns:
      The errors of bytes that stay. None if no failed task has that id.

    Raises:
      SQLAlchemyError: the database is away.
    """
    # Rows first: a task that was replayed meanwhile keeps its bytes.
    with producer.database.begin() as session:
        task = dead_letters.find(session, task_id)
        pictures = dead_letters.forget(session, task_id)  # which locks the task first
        if task is not None and pictures is not None and task.name == DELETE_IMAGES:
            _bury(session, producer.settings, task)
    if pictures is None:
        return None
    staged = [each.staging_key for each in pictures if each.staging_key]
    try:
        unstaged = producer.connections.staging.delete(staged)
    except DreamError as error:
        unstaged = dict.fromkeys(staged, error)
    failed = producer.storage.delete_places(set().union(*map(places_of, pictures)))
    return [*unstaged.values(), *failed.values()]


def _bury(session: Session, settings: Settings, deletion: DreamTask) -> None:
    """Make tombstones of the pictures that a deletion has hidden."""
    try:
        wanted = check_deletion(*deletion.args)
    except (InvalidArguments, TypeError):  # a wrong call, which has hidden none
        return
    dream_id, _, username = deletion.args
    found = [each.image for each in resolve(session, settings, dream_id, wanted, username or "") if each.image]
    images.mark_deleted(session, [image.id for image in found if image.state is ImageState.DELETING])

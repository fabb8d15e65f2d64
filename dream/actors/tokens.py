"""The flow of the clean-up: delete the revocations of tokens that have expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.db import tasks
from dream.db.batches import in_batches
from dream.db.blacklist import blacklist_of
from dream.fault_points import step
from dream.log import get_logger

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.actors.resources import Resources
    from dream.runs.run import Run

__all__ = ["clean_up"]

log = get_logger(__name__)


@step("clean_up")
def clean_up(resources: Resources, run: Run) -> int:
    """Delete expired revocations, batch by batch; returns how many, including those of earlier runs of the task.

    Raises:
      RunContinues: the time limit is reached; the next run deletes the rest.
      BlacklistMissing: simplejwt's tables are not there.
    """
    with resources.connections.database.read() as session:
        deleted = int(tasks.progress(session, run.claim) or 0)
    expired = blacklist_of(resources.settings).expired()

    def delete_some(session: Session, count: int) -> int | None:
        found = expired.delete(session, count)
        if found:
            # In the same transaction: a worker that dies before the commit has deleted nothing.
            tasks.note_progress(session, run.claim, deleted + found)
        return found

    for count in in_batches(resources.connections.database, delete_some):
        deleted += count
        run.has_progressed = run.has_progressed or count > 0
        run.check()
    log.info("tokens_cleaned_up", deleted=deleted)
    return deleted

"""The token actor: removes revocations of tokens that have expired anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dramatiq

from dream.actors import broker, shared
from dream.actors.images import BACKSTOP_MS
from dream.db import tasks, tokens
from dream.db.batches import in_batches
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import CLEANUP_TOKENS, DEFAULT_QUEUE
from dream.middleware.run import current_run

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.actors.resources import Resources
    from dream.middleware.run import Run

__all__ = ["clean_up", "cleanup_expired_tokens"]

log = get_logger(__name__)


@step("clean_up")
def clean_up(resources: Resources, run: Run) -> int:
    """Delete expired revocations, batch by batch; returns how many, including those of earlier runs of the task.

    Raises:
      RunContinues: the time limit is reached; the next run deletes the rest.
    """
    with resources.database.read() as session:
        deleted = int(tasks.progress(session, run.claim) or 0)
    expired = tokens.Expired()

    def delete_some(session: Session, count: int) -> int | None:
        found = expired.delete(session, count)
        if found:
            # In the same transaction: a worker that dies before the commit has deleted nothing.
            tasks.note_progress(session, run.claim, deleted + found)
        return found or None

    for count in in_batches(resources.database, delete_some):
        deleted += count
        run.has_progressed = True
        run.check()
    log.info("tokens_cleaned_up", deleted=deleted)
    return deleted


def cleanup_expired_tokens() -> int:
    """See `clean_up`."""
    return clean_up(shared, current_run())


dramatiq.actor(
    actor_name=CLEANUP_TOKENS,
    queue_name=shared.settings.queue_prefix + DEFAULT_QUEUE,
    broker=broker,
    durable=True,
    time_limit=BACKSTOP_MS,
)(cleanup_expired_tokens)

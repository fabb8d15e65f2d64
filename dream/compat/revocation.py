"""What it takes to revoke tasks, besides telling the workers that run.

Redis     for workers that start later, and those that did not hear it (`worker.revoked`)
rows      of dream's own tasks: whoever claims one sees it
results   of tasks that wait: who waits for one need not wait until its message is due
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.compat.exceptions import OperationalError, TaskRevokedError

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.db import Database
    from dream.settings import Settings

__all__ = ["end_those_that_wait", "write_down", "write_into_rows"]


def write_down(settings: Settings, task_ids: Sequence[str]) -> None:
    """Let workers know of it, also those that start later.

    Raises:
      OperationalError: Redis is away.
    """
    from redis import RedisError

    from dream.compat.worker.revoked import revoke

    try:
        revoke(settings, task_ids)
    except RedisError as error:
        raise OperationalError(f"the revocation cannot be written down: {error}") from error


def write_into_rows(database: Database, task_ids: Sequence[str]) -> None:
    """Revoke dream's own tasks among them, as far as the database is there; an app without any needs none."""
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db.faults import explain
    from dream.db.revocation import revoke
    from dream.log import get_logger

    try:
        with database.begin() as session:
            revoke(session, task_ids)
    except SQLAlchemyError as error:
        if database.is_bare():
            return
        get_logger(__name__).warning("rows_not_revoked", error=str(explain(error)))


def end_those_that_wait(app: Celery, task_ids: Sequence[str]) -> None:
    """Keep REVOKED as the end of those of which no run is known.

    Raises:
      ResultsUnavailable, DatabaseUnavailable
    """
    from dream.compat.failures import write_error
    from dream.results import meta_of
    from dream.results.states import PENDING, RETRY, REVOKED

    error = write_error(TaskRevokedError("revoked"))
    for task_id in task_ids:
        if app.AsyncResult(task_id).state in (PENDING, RETRY):
            app.producer.results.put(meta_of(task_id, REVOKED, error))

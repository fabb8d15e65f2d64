"""dream as the host of the Celery façade: the product's side of `dream.compat.host`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from dream import producer
from dream.celery import own
from dream.celery.own_task import lend_producer, producer_of
from dream.log import get_logger
from dream.messages.registry import OWN_TASKS, QUEUES

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.celery.accepting import OwnTasks
    from dream.compat.app.base import Celery
    from dream.compat.host import Host, WorkerHost
    from dream.compat.periodic import PeriodicTask
    from dream.compat.result import AsyncResult
    from dream.runs.claims import Claims
    from dream.settings import Settings
    from dream.work.broker import AnyBroker
    from dream.work.results import Meta
    from dream.work.worker import WorkerMiddleware

__all__ = ["Dream", "Worker", "host"]

T = TypeVar("T")

#: Packages that runs of dream's own tasks need, and the façade does not.
_NEEDED = ("PIL", "boto3", "sqlalchemy")


def host() -> Host | None:
    """dream as the host, if the packages that its own tasks need are installed; else None."""
    return Dream() if all(find_spec(name) is not None for name in _NEEDED) else None


@dataclass(frozen=True)
class Worker:
    """A worker of dream's; see `dream.compat.host.WorkerHost`."""

    settings: Settings
    broker: AnyBroker
    middleware: WorkerMiddleware
    runs: Claims
    run: Callable[..., int]


class Dream:
    """See `dream.compat.host.Host`."""

    tasks: Collection[str] = OWN_TASKS
    queues: Sequence[str] = QUEUES

    def default_app(self) -> Celery:
        return own.app

    def send(
        self, app: Celery, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Any
    ) -> AsyncResult:
        return own.own_task(name).send_by(app, args, kwargs, options)

    def find(self, app: Celery, task_id: str) -> Meta | None:
        from dream.db import DreamTask
        from dream.runs.outcomes import kept_of, kept_of_pictures

        def read(session: Session) -> Meta | None:
            task = session.get(DreamTask, task_id)
            # Retention may have removed the task's row; an upload's pictures still give its result.
            return kept_of(task) if task is not None else kept_of_pictures(session, task_id)

        return _read(app, read, None)

    def revoke(self, app: Celery, task_ids: Sequence[str]) -> None:
        """Revoke the tasks in their rows. A database without dream's tables is no error: an app may need none."""
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db.faults import explain
        from dream.db.tasks import revoke

        database = producer_of(app).database
        try:
            with database.begin() as session:
                revoke(session, task_ids)
        except SQLAlchemyError as error:
            if not database.is_bare():
                get_logger(__name__).warning("rows_not_revoked", error=str(explain(error)))

    def irrevocable(self, app: Celery, task_ids: Sequence[str]) -> Collection[str]:
        from dream.db.tasks import begun_deletions

        return _read(app, lambda session: begun_deletions(session, task_ids), set[str]())

    def worker(self, app: Celery) -> WorkerHost:
        from dream import actors

        lend_producer(app, actors.shared.producer)
        return Worker(
            settings=actors.shared.settings,
            broker=actors.broker,
            middleware=actors.middleware,
            runs=actors.claims,
            run=actors.run,
        )

    def acceptor(self) -> OwnTasks:
        from dream.celery.accepting import OwnTasks

        return OwnTasks(producer.default())

    def timetable(self) -> Mapping[str, Mapping[str, Any]]:
        return own.timetable()

    def keep_time(self, settings: Settings, entries: Sequence[PeriodicTask]) -> int:
        from dream.scheduler.runner import run

        return run(settings, entries)


def _read(app: Celery, look: Callable[[Session], T], without_tables: T) -> T:
    """Look at rows. A database without dream's tables is no error: an app may need none.

    Raises:
      DatabaseUnavailable
    """
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db.faults import explain

    database = producer_of(app).database
    try:
        with database.read() as session:
            return look(session)
    except SQLAlchemyError as error:
        if database.is_bare():
            return without_tables
        raise explain(error, "the rows of tasks cannot be read") from error

"""A task run here and now, in the caller's process: the same rows, objects and events, without worker or broker.

    recorded task ─► claim, lease kept ─► the actor's own flow, pictures in this process ─► outcome ─► event

There is no retry and no time limit: the caller waits, and gets the result or the error. Should the process die on the
way, the sweep finds the task and a worker finishes it.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream import outcomes
from dream.actors.deletion import delete
from dream.actors.tokens import clean_up
from dream.actors.upload import upload
from dream.actors.work_folder import WorkFolder, remove_abandoned
from dream.db import DreamTask, tasks
from dream.errors import ImageCrashed, LeaseLost
from dream.imaging import Limits, Processed, process_file
from dream.log import bind, get_logger
from dream.messages import CLEANUP_TOKENS, DELETE_IMAGES, PROCESS_IMAGES, TaskState
from dream.middleware.leases import LeaseKeeper
from dream.middleware.run import Run, class_of, full_reason_of, log_fields
from dream.notifications import Publisher

if TYPE_CHECKING:
    from dream.db import Database
    from dream.db.tasks import Claim
    from dream.producer import Producer
    from dream.settings import Settings
    from dream.storage import Storage

__all__ = ["run_recorded"]

log = get_logger(__name__)

_FLOWS: dict[str, Callable[..., Any]] = {
    PROCESS_IMAGES: upload,
    DELETE_IMAGES: delete,
    CLEANUP_TOKENS: clean_up,
}


def run_recorded(settings: Settings, producer: Producer, task_id: str) -> Any:
    """Run a task that was accepted but not sent, and return its result.

    Parameters:
      settings: the process's.
      producer: the one that accepted the task.
      task_id: its id.

    Raises:
      LeaseLost: another process has taken the task in the meantime.
      Exception: whatever the run failed with.
    """
    resources = _InlineResources(settings, producer)
    with resources.database.begin() as session:
        claim = tasks.claim(session, task_id, settings.lease_s)
    if claim is None:
        raise LeaseLost(f"task {task_id} is held by another run")
    with _kept(settings, resources.database, claim) as run:
        return _run(resources, run)


@contextmanager
def _kept(settings: Settings, database: Database, claim: Claim) -> Iterator[Run]:
    """A run without an end of its own, whose lease is renewed for as long as the block lasts."""
    keeper = LeaseKeeper(database, settings.lease_s, settings.lease_renew_s)
    keeper.start()
    try:
        yield Run(claim, math.inf, lost=keeper.keep(claim.token), stopping=threading.Event())
    finally:
        keeper.stop()


def _run(resources: _InlineResources, run: Run) -> Any:
    claim = run.claim
    with bind(**log_fields(claim)):
        try:
            result = _FLOWS[claim.name](resources, run, *claim.args)
        except LeaseLost:
            raise
        except BaseException as error:
            result = _conclude(resources, claim, error)
            if result is None or not isinstance(error, Exception):
                raise
        else:
            resources.database.persist(lambda session: tasks.finish(session, claim, TaskState.SUCCEEDED, result=result))
            outcomes.announce(resources.database, resources.publisher, resources.results, claim.task_id)
        return result


def _conclude(resources: _InlineResources, claim: Claim, error: BaseException) -> Any:
    """Write a failure; returns the result where the task has one nevertheless: of a batch, some pictures are stored."""
    reason, kind = full_reason_of(error), class_of(error)
    resources.database.persist(lambda session: outcomes.conclude_failure(session, claim, reason, error_class=kind))
    log.warning("task_failed", error=reason)
    outcomes.announce(resources.database, resources.publisher, resources.results, claim.task_id)
    with resources.database.read() as session:
        task = session.get(DreamTask, claim.task_id)
    return task.result if task is not None and task.state is TaskState.SUCCEEDED else None


class _InlineResources:
    """What a run here works with: the producer's connections, and this process instead of a pool."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.settings = settings
        self.producer = producer
        self.publisher = _publisher(settings)
        self.results = producer.results
        self.pool = _Here()

    @property
    def database(self) -> Database:
        return self.producer.database

    @property
    def storage(self) -> Storage:
        return self.producer.storage

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for the files of the run, gone after it; where this process is killed, the next one removes it."""
        parent = Path(self.settings.work_dir or tempfile.gettempdir())
        _remove_abandoned_once(parent)
        folder = WorkFolder(parent)
        try:
            yield folder.path()
        finally:
            folder.remove()


@lru_cache(maxsize=1)
def _remove_abandoned_once(parent: Path) -> None:
    remove_abandoned(parent)


@lru_cache(maxsize=1)
def _publisher(settings: Settings) -> Publisher:
    return Publisher(settings)


class _Here:
    """Works on pictures in this process, when somebody waits for them."""

    def submit(self, source: Path, target: Path, limits: Limits) -> _Job:
        return _Job(source, target, limits)


class _Job:
    def __init__(self, source: Path, target: Path, limits: Limits) -> None:
        self._source = source
        self._target = target
        self._limits = limits

    def wait(self, poll: Callable[[], None]) -> Processed:
        """Process the picture.

        Raises:
          ImageRejected: it is bad.
          ImageCrashed: there is not enough memory.
        """
        poll()
        try:
            return process_file(self._source, self._target, self._limits)
        except MemoryError:
            raise ImageCrashed("the picture needs more memory than this process has") from None

    def cancel(self) -> None:
        """Nothing to do: the work is done while somebody waits, or not at all."""

"""Run a task at once in the caller's process: the same rows, objects and events, without worker or broker.

    recorded task ─► claim, lease kept ─► the actor's own flow, pictures in this process ─► outcome ─► event

There is no retry and no time limit: the caller waits, and gets the result or the error. If the process dies on the
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

from dream.actors.work_folder import WorkFolder, remove_abandoned
from dream.db import DreamTask, tasks
from dream.errors import DreamError, ImageCrashed, LeaseLost, Reason
from dream.imaging import Limits, Processed, process_file
from dream.messages.registry import kind_of, load
from dream.messages.states import TaskState
from dream.observe import tracing
from dream.runs.ledger import RowLedger
from dream.runs.run import LeaseKeeper, Run, begin, failure_of

if TYPE_CHECKING:
    from dream.db.tasks import Claim
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["run_recorded"]


def run_recorded(settings: Settings, producer: Producer, task_id: str) -> Any:
    """Run a task that was accepted but not sent, and return its result.

    Parameters:
      settings: the process's.
      producer: the one that accepted the task.
      task_id: its id.

    Raises:
      LeaseLost: another process has taken the task in the meantime.
      Exception: the error of the run.
    """
    resources, database = _InlineResources(settings, producer), producer.database
    with database.begin() as session:
        claim = tasks.claim(session, task_id, settings.lease_s)
    if claim is None:
        raise LeaseLost(f"task {task_id} is claimed by another run")
    keeper = LeaseKeeper(database, settings.lease_s, settings.lease_renew_s)
    keeper.start()
    with tracing.span("run", task=claim.name):
        run = begin(claim, keeper, deadline=math.inf, stopping=threading.Event())
        run.scope.callback(keeper.stop)
        with run.scope:
            return _run(RowLedger(settings, producer.connections), resources, run)


def _run(ledger: RowLedger, resources: _InlineResources, run: Run) -> Any:
    """Do the work and write its outcome. A failed batch with some pictures stored still has a result."""
    claim = run.claim
    try:
        result = _flow(claim)(resources, run, *claim.args)
    except LeaseLost:
        raise
    except BaseException as error:
        ledger.conclude(claim, failure_of(error), is_raised=True)
        with resources.connections.database.read() as session:
            task = session.get(DreamTask, claim.task_id)
        if task is None or task.state is not TaskState.SUCCEEDED or not isinstance(error, Exception):
            raise
        return task.result
    ledger.succeed(claim, result)
    return result


def _flow(claim: Claim) -> Callable[..., Any]:
    kind = kind_of(claim.name)
    if kind is None:
        raise DreamError(f"{claim.name} is no task of dream's own")
    return load(kind.flow)


class _InlineResources:
    """Resources of a run in this process: the producer's connections, and no pool."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.settings = settings
        self.producer = producer
        self.connections = producer.connections
        self.pool = _Here()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for the run's files, removed after it; the folder of a killed process is removed by the next one."""
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


class _Here:
    """Processes a picture in this process, when the caller waits for it."""

    def submit(self, source: Path, target: Path, limits: Limits, group: str) -> _Job:  # noqa: ARG002 (the pool's)
        return _Job(source, target, limits)


class _Job:
    def __init__(self, source: Path, target: Path, limits: Limits) -> None:
        self._source = source
        self._target = target
        self._limits = limits
        self.has_begun = False

    def wait(self, poll: Callable[[], None]) -> Processed:
        """Process the picture.

        Raises:
          ImageRejected: the picture is refused.
          ImageCrashed: there is not enough memory.
        """
        self.has_begun = True
        poll()
        try:
            return process_file(self._source, self._target, self._limits)
        except MemoryError:
            raise ImageCrashed.because(Reason.IMAGE_OUT_OF_MEMORY_HERE) from None

    def cancel(self) -> None:
        """Do nothing: the work happens only in `wait`."""

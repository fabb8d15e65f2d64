"""Resources of runs: connections, the pool for pictures, a folder for files; and those of a worker process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dream.actors.work_folder import WorkFolder, remove_abandoned
from dream.errors import DreamError, WorkerStopping
from dream.imaging.limits import Limits
from dream.log import get_logger
from dream.producer import Producer
from dream.runs.connections import Connections

if TYPE_CHECKING:
    from dream.imaging import Processed
    from dream.imaging.lanes import Lanes
    from dream.imaging.pool import Pool
    from dream.settings import Settings
    from dream.work.broker import AnyBroker

__all__ = ["Imaging", "Job", "Resources", "WorkerResources"]

log = get_logger(__name__)

#: Niceness of the children that work for busy users: the express lane and the services go before them.
_NICENESS = 10
#: The advice in the log when the pool does not start.
_DO = "let this user write to /dev/shm and DREAM_WORK_DIR, and start more processes and threads"


class Job(Protocol):
    """One picture in work."""

    @property
    def has_begun(self) -> bool: ...

    def wait(self, poll: Callable[[], None]) -> Processed: ...

    def cancel(self) -> None: ...


class Imaging(Protocol):
    """Processing of pictures: by the pool's processes, or by this process itself."""

    def submit(self, source: Path, target: Path, limits: Limits, group: str) -> Job: ...


class Resources(Protocol):
    """The resources of a run."""

    @property
    def settings(self) -> Settings: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def producer(self) -> Producer: ...
    @property
    def pool(self) -> Imaging: ...
    def folder(self) -> AbstractContextManager[Path]: ...


class WorkerResources:
    """The resources that the actors of a worker process share.

    Parameters:
      settings: the process's.
      broker: the process's.
    """

    def __init__(self, settings: Settings, broker: AnyBroker) -> None:
        self.settings = settings
        self.connections = Connections(settings, broker=broker)
        self.producer = Producer(settings, self.connections)
        self._pool_ready = threading.Event()
        #: The pool did not start: this process cannot process pictures and must be replaced.
        self.is_unfit = False
        self._work_folder = WorkFolder(Path(settings.work_dir or tempfile.gettempdir()))

    @cached_property
    def pool(self) -> Lanes:
        """The pool. A caller waits while the pool starts."""
        self._pool_ready.wait()
        return self._pool

    @cached_property
    def _pool(self) -> Lanes:
        from dream.imaging.lanes import Lanes

        return Lanes(self._children(self.settings.pool_processes, _NICENESS), self._children(1, 0))

    def _children(self, processes: int, niceness: int) -> Pool:
        from dream.imaging.child import Renewal
        from dream.imaging.pool import Pool

        settings = self.settings
        return Pool(
            Limits.of(settings),
            processes,
            settings.image_time_limit_s,
            settings.child_memory_bytes,
            Renewal(settings.child_max_pictures, settings.child_max_rss_bytes),
            niceness,
        )

    def start_pool(self) -> None:
        """Start the pool in another thread: the worker takes messages while the pool's processes still import."""
        starting = self._pool
        remove_abandoned(self._work_folder.parent)

        def start() -> None:
            try:
                starting.start()
            except WorkerStopping:
                log.info("pool_start_cancelled")
            except (DreamError, OSError, RuntimeError) as error:  # RuntimeError: the system allows no more threads
                self._give_up(error)
            finally:
                self._pool_ready.set()

        try:
            threading.Thread(target=start, name="pool-start", daemon=True).start()
        except RuntimeError as error:
            self._give_up(error)
            starting.stop()  # a run gets `WorkerStopping`, which counts as no attempt
            self._pool_ready.set()

    def _give_up(self, error: Exception) -> None:
        self.is_unfit = True
        log.error("pool_not_started", error=str(error), do=_DO)

    def stop_pool(self) -> None:
        """End the pool's processes at once. A run that waits for the pool or its children gets `WorkerStopping`."""
        self._pool.stop()
        self._pool_ready.wait()  # the thread of `start_pool` ends now

    def stop_starting_pool(self) -> None:
        """Stop a pool that still starts; a started pool lets its runs finish."""
        if not self._pool_ready.is_set():
            self.stop_pool()

    def folder(self) -> AbstractContextManager[Path]:
        """A folder for the files of one run, removed after it."""
        return self._work_folder.of_run()

    def close(self) -> None:
        """Close everything except the broker, which the worker closes."""
        self._work_folder.remove()
        self.connections.close()

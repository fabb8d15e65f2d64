"""What runs work with: connections, whatever works on pictures, a folder for files; and those of a worker process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dream.actors.work_folder import WorkFolder, remove_abandoned
from dream.db import Database
from dream.errors import DreamError
from dream.imaging.limits import Limits
from dream.log import get_logger
from dream.notifications import Publisher
from dream.producer import Producer
from dream.storage import Storage

if TYPE_CHECKING:
    from dream.broker import AnyBroker
    from dream.imaging import Processed
    from dream.imaging.pool import Pool
    from dream.settings import Settings

__all__ = ["Imaging", "Job", "Resources", "WorkerResources"]

log = get_logger(__name__)


class Job(Protocol):
    """One picture in work."""

    def wait(self, poll: Callable[[], None]) -> Processed: ...

    def cancel(self) -> None: ...


class Imaging(Protocol):
    """Whatever works on pictures: the pool's processes, or this process itself."""

    def submit(self, source: Path, target: Path, limits: Limits) -> Job: ...


class Resources(Protocol):
    """What a run works with."""

    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def publisher(self) -> Publisher: ...
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
        self.broker = broker
        self.database = Database(settings)
        self.storage = Storage(settings)
        self.publisher = Publisher(settings)
        self.producer = Producer(settings, database=self.database, storage=self.storage, broker=broker)
        self._pool_ready = threading.Event()
        #: The pool did not start: this process can work on no picture and must be replaced.
        self.is_unfit = False
        self._work_folder = WorkFolder(Path(settings.work_dir or tempfile.gettempdir()))

    @cached_property
    def pool(self) -> Pool:
        """The pool; whoever asks while it starts waits for it."""
        self._pool_ready.wait()
        return self._pool

    @cached_property
    def _pool(self) -> Pool:
        from dream.imaging.pool import Pool

        settings = self.settings
        return Pool(
            Limits.of(settings), settings.pool_processes, settings.image_time_limit_s, settings.child_memory_bytes
        )

    def start_pool(self) -> None:
        """Start the pool beside the caller: messages are taken while its processes still import."""
        starting = self._pool
        remove_abandoned(self._work_folder.parent)

        def start() -> None:
            try:
                starting.start()
            except (DreamError, OSError) as error:
                self.is_unfit = True
                log.error("pool_not_started", error=str(error))
            finally:
                self._pool_ready.set()

        threading.Thread(target=start, name="pool-start", daemon=True).start()

    def stop_pool(self) -> None:
        """End the pool's processes, whatever they do."""
        self._pool_ready.wait()
        self._pool.stop()

    def folder(self) -> AbstractContextManager[Path]:
        """A folder for the files of one run, gone after it."""
        return self._work_folder.of_run()

    def close(self) -> None:
        """Give everything back but the broker, which is its worker's to close."""
        self._work_folder.remove()
        self.publisher.close()
        self.database.dispose()

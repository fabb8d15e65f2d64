"""The folder of a worker process for files in work: locked while the process lives; others remove unlocked ones."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["WorkFolder", "remove_abandoned"]

_PREFIX = "dream-work-"
_LOCK = "lock"


class WorkFolder:
    """See the module; safe to share between threads.

    Parameters:
      parent: where it is made.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._guard = threading.Lock()
        self._path: Path | None = None
        self._lock_file: IO[bytes] | None = None

    def path(self) -> Path:
        """The folder, made at the first call, and again if a cleaner of old temporary files has removed it."""
        with self._guard:
            if self._path is None:
                self._path = Path(tempfile.mkdtemp(dir=self.parent, prefix=_PREFIX))
            if not (self._path / _LOCK).exists():
                self._path.mkdir(mode=0o700, exist_ok=True)
                self._lock(self._path)
            return self._path

    @contextmanager
    def of_run(self) -> Iterator[Path]:
        """A folder for the files of one run, removed after it."""
        with tempfile.TemporaryDirectory(dir=self.path(), prefix="run-", ignore_cleanup_errors=True) as name:
            yield Path(name)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        with self._guard:
            if self._path is not None:
                shutil.rmtree(self._path, ignore_errors=True)
            self._let_go()

    def _lock(self, folder: Path) -> None:
        self._let_go()
        # Locked under another name first: other processes remove a folder whose lock is free.
        unnamed = folder / f"{_LOCK}.new"
        self._lock_file = unnamed.open("wb")
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        unnamed.rename(folder / _LOCK)

    def _let_go(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its process lives, or it is another user's

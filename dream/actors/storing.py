"""Objects and staged bytes as a run sees them: no call outlasts the run, be it that the store hangs or drips.

The store's own time-outs are there for a request; a run ends at its limit, when its worker stops, or when another run
has taken its task.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dream.actors.resources import Resources
    from dream.errors import DreamError
    from dream.middleware.run import Run

__all__ = ["RunStorage"]


class RunStorage:
    """What a run does with the object store; each call raises as `Run.wait_for` where the run must end first.

    Parameters:
      resources: what the run works with.
      run: whose time it is.
    """

    def __init__(self, resources: Resources, run: Run) -> None:
        self._storage = resources.storage
        self._staging = resources.producer.staging_area
        self._run = run

    def fetch_staged(self, key: str, path: Path) -> None:
        """See `StagingArea.fetch`."""
        self._run.wait_for(lambda: self._staging.fetch(key, path))

    def delete_staged(self, keys: Iterable[str]) -> dict[str, DreamError]:
        """See `StagingArea.delete`."""
        wanted = list(keys)
        return self._run.wait_for(lambda: self._staging.delete(wanted))

    def put_file(self, bucket: str, key: str, path: Path, content_type: str) -> None:
        """See `Storage.put_file`."""
        self._run.wait_for(lambda: self._storage.put_file(bucket, key, path, content_type))

    def delete(self, bucket: str, keys: Iterable[str]) -> dict[str, DreamError]:
        """See `Storage.delete`."""
        wanted = list(keys)
        return self._run.wait_for(lambda: self._storage.delete(bucket, wanted))

    def ensure_bucket(self, bucket: str) -> None:
        """See `Storage.ensure_bucket`."""
        self._run.wait_for(lambda: self._storage.ensure_bucket(bucket))

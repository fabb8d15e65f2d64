"""Removes rows past their time, once an hour and at each start, in batches (`dream.db.retention`)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dream.db import retention
from dream.db.batches import in_batches
from dream.db.retention import OldTasks, OldTombstones
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.db import Database
    from dream.settings import Settings

__all__ = ["Retention"]

log = get_logger(__name__)

_EVERY_S = 3600.0
_SHORTEST_S = 1.0


class Retention:
    """See the module.

    Parameters:
      settings: how long rows live.
      database: where they are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopping = threading.Event()

    @property
    def every_s(self) -> float:
        """Seconds between two prunings: an hour, or the shortest life of rows if that is less."""
        settings = self._settings
        lives = [each for each in (settings.task_ttl_s, settings.failed_task_ttl_s, settings.tombstone_ttl_s) if each]
        return max(_SHORTEST_S, min([_EVERY_S, *lives]))

    def prune(self) -> dict[str, int]:
        """Remove what is past its time; returns how many rows of each kind.

        Raises:
          SQLAlchemyError: the database is away; the next call continues.
        """
        settings, removed = self._settings, {"tasks": 0, "failed_tasks": 0, "tombstones": 0, "entries": 0}
        if settings.task_ttl_s:
            removed["tasks"] = self._remove(OldTasks(settings.task_ttl_s, is_failed=False))
            with self._database.begin() as session:
                removed["entries"] = retention.delete_old_entries(session, settings.task_ttl_s)
        if settings.failed_task_ttl_s:
            removed["failed_tasks"] = self._remove(OldTasks(settings.failed_task_ttl_s, is_failed=True))
        # Last, because tombstones of a failed task stay as long as its row.
        if settings.tombstone_ttl_s:
            removed["tombstones"] = self._remove(OldTombstones(settings.tombstone_ttl_s))
        if any(removed.values()):
            log.info("rows_pruned", **removed)
        return removed

    def _remove(self, old: OldTasks | OldTombstones) -> int:
        count = 0
        for deleted in in_batches(self._database, old.delete):
            count += deleted
            if self._stopping.is_set():
                break
        return count

    def stop(self) -> None:
        """End after the batch that runs; the rest is for the next start."""
        self._stopping.set()

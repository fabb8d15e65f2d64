"""Remove orphans, and rows past their time."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from dream.db import images, remakes, retention, uploads
from dream.db.batches import in_batches
from dream.db.retention import OldTasks, OldTombstones
from dream.log import get_logger
from dream.messages.states import ImageState
from dream.observe.metrics import ORPHANS, PRUNED
from dream.storage.keys import old_places_of, places_of, upload_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from dream.db import Database, DreamImage
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["Orphans", "Retention"]

log = get_logger(__name__)

_AT_ONCE = 500
#: Failed pictures of one batch: a scheduler that is killed during it leaves the objects of so many.
_FAILED_AT_ONCE = 50
_PRUNE_EVERY_S = 3600.0
_SHORTEST_S = 1.0


class Orphans:
    """Objects and staged bytes that nothing needs any more, removed each night.

    It finds orphans from rows, and lists only `staging/`, never `dreams/`: older pictures there have no row.

    Parameters:
      settings: the lifetime of staged bytes.
      connections: the rows, the objects and the staged bytes.
      stopping: ends `remove` after the batch that runs; the next call removes the rest.
    """

    def __init__(self, settings: Settings, connections: Connections, stopping: threading.Event | None = None) -> None:
        self._settings = settings
        self._stopping = stopping or threading.Event()
        self._database = connections.database
        self._storage = connections.storage
        self._staging = connections.staging

    def remove(self) -> dict[str, int]:
        """Remove all kinds of orphans; return the number of each.

        Raises:
          DreamError: the object store is away; the next night removes the rest.
        """
        removed = {
            "staged": self._staged_of_rows(),
            "objects": self._objects_of_ended(),
            "remade": self._objects_of_older_remakes(),
            "orphans": self._staged_without_rows(),
        }
        for kind, count in removed.items():
            ORPHANS.add(kind, amount=count)
        log.info("leftovers_removed", **removed)
        return removed

    def _pages(self, read: Callable[[Session, images.Cursor | None], Sequence[Any]]) -> Iterator[Sequence[Any]]:
        """Read pictures page by page, until none is left or the scheduler stops."""
        last: images.Cursor | None = None
        while not self._stopping.is_set():
            with self._database.read() as session:
                rows = read(session, last)
            if not rows:
                break
            last = rows[-1].updated_at, rows[-1].id
            yield rows

    def _staged_of_rows(self) -> int:
        """Staged bytes of pictures that are done, or failed too long ago to be replayed."""
        count, ttl_s = 0, self._settings.staging_ttl_s
        for rows in self._pages(lambda session, last: images.staged_ended(session, ttl_s, _AT_ONCE, last)):
            failed = self._staging.delete([row.staging_key or "" for row in rows])
            for error, left in Counter(str(error) for error in failed.values()).items():
                log.warning("staged_bytes_left", count=left, error=error)
            with self._database.begin() as session:
                images.forget_staged(session, [row.id for row in rows if row.staging_key not in failed])
            count += len(rows) - len(failed)
        return count

    def _objects_of_ended(self) -> int:
        """Objects of ended pictures: a run that was paused, or died before it wrote the row, may have left one."""
        count = 0
        for rows in self._pages(lambda session, last: images.unswept(session, _AT_ONCE, last)):
            count += self._sweep_deleted([row for row in rows if row.state is ImageState.DELETED])
            failed = [row.id for row in rows if row.state is ImageState.FAILED]
            for start in range(0, len(failed), _FAILED_AT_ONCE):
                if not self._stopping.is_set():
                    count += self._sweep_failed(failed[start : start + _FAILED_AT_ONCE])
        return count

    def _sweep_deleted(self, rows: Sequence[DreamImage]) -> int:
        left = self._not_swept(rows)
        with self._database.begin() as session:
            images.note_swept(session, {row.id for row in rows} - set(left))
        return len(rows) - len(left)

    def _sweep_failed(self, image_ids: Collection[int]) -> int:
        """A failed picture may be replayed at this moment, so it is noted first."""
        with self._database.begin() as session:
            rows = images.take_failed(session, image_ids)
        left = self._not_swept(rows)
        self._database.persist(lambda session: images.undo_sweep(session, left))
        return len(rows) - len(left)

    def _objects_of_older_remakes(self) -> int:
        """Objects that a remake has replaced, once no browser can ask for them, and those of remakes that failed."""
        # Gateways keep a row, and browsers its redirect, for the forget time; a run may store for its time limit.
        settings = self._settings
        quiet_s = 2 * settings.media_forget_s + max(images.LATE_OBJECT_S, 2 * settings.time_limit_s)
        count = 0
        for rows in self._pages(lambda session, last: remakes.outdated(session, quiet_s, _AT_ONCE, last)):
            left = set(self._with_left({row.id: old_places_of(row) for row in rows}))
            swept = {row.id: row.last_remake for row in rows if row.id not in left}
            with self._database.begin() as session:
                remakes.forget_old_objects(session, swept)
            count += len(swept)
        return count

    def _not_swept(self, rows: Sequence[DreamImage]) -> list[int]:
        """Delete every object that these pictures may have; returns the ids of pictures with an object that stays."""
        return self._with_left({row.id: places_of(row) for row in rows})

    def _with_left(self, places: Mapping[int, Collection[tuple[str, str]]]) -> list[int]:
        """Delete the objects of pictures; returns the ids of pictures with an object that stays."""
        failed = self._storage.delete_places(set().union(*places.values()))
        for error, count in Counter(str(error) for error in failed.values()).items():
            log.warning("objects_left", count=count, error=error)
        return [image_id for image_id, own in places.items() if not failed.keys().isdisjoint(own)]

    def _staged_without_rows(self) -> int:
        """Bytes of uploads whose rows were never committed, and of direct uploads that are over."""
        oldest = datetime.now(UTC) - timedelta(seconds=self._settings.staging_orphan_s)
        going_on = takewhile(lambda _: not self._stopping.is_set(), self._staging.list_keys())
        old = (key for key, written_at in going_on if written_at < oldest)
        count = 0
        while batch := list(islice(old, _AT_ONCE)):
            count += self._remove_unreferenced(batch)
        return count

    def _remove_unreferenced(self, keys: Collection[str]) -> int:
        owners = {key: upload_of(key) for key in keys}
        with self._database.read() as session:
            # Before the pictures: an upload that is completed between the two queries is in the second.
            are_open = uploads.open_among(session, {upload for upload in owners.values() if upload is not None})
            orphans = {key for key in keys if owners[key] not in are_open} - images.staged_keys(session, keys)
        return len(orphans) - len(self._staging.delete(sorted(orphans)))


class Retention:
    """Rows past their time, removed once an hour and at each start, in batches (`dream.db.retention`).

    Parameters:
      settings: the lifetime of rows.
      database: the rows.
      stopping: ends `prune` after the batch that runs; the next call removes the rest.
    """

    def __init__(self, settings: Settings, database: Database, stopping: threading.Event | None = None) -> None:
        self._settings = settings
        self._database = database
        self._stopping = stopping or threading.Event()

    @property
    def every_s(self) -> float:
        """Seconds between two prunings: an hour, or the shortest life of rows if that is less."""
        settings = self._settings
        lives = [each for each in (settings.task_ttl_s, settings.failed_task_ttl_s, settings.tombstone_ttl_s) if each]
        return max(_SHORTEST_S, min([_PRUNE_EVERY_S, *lives]))

    def prune(self) -> dict[str, int]:
        """Remove the rows; returns how many of each kind.

        Raises:
          SQLAlchemyError: the database is away; the next call continues.
        """
        # Pictures of older releases count in quotas from here on. Once an hour is often enough.
        for _ in in_batches(self._database, lambda session, count: images.measure(session, count) or None):
            if self._stopping.is_set():
                break
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
        for kind, count in removed.items():
            PRUNED.add(kind, amount=count)
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

"""The nightly removal of what nothing needs any more.

Leftovers are found from rows, never by listing `dreams/`: old pictures there have no row. Only `staging/` is
listed (docs/architecture.md, "Leftovers are found from rows").
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

from dream.db import images
from dream.errors import DreamError
from dream.log import get_logger
from dream.storage import StagingArea
from dream.storage.keys import keys_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dream.db import Database, DreamImage
    from dream.settings import Settings
    from dream.storage import Storage

__all__ = ["Leftovers"]

log = get_logger(__name__)

_AT_ONCE = 500


class Leftovers:
    """See the module."""

    def __init__(self, settings: Settings, database: Database, storage: Storage) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._staging = StagingArea(settings, storage)

    def remove(self) -> dict[str, int]:
        """Remove all kinds of leftovers; returns how many of each.

        Raises:
          DreamError: the object store is away; what is left is removed the next night.
        """
        removed = {
            "staged": self._staged_of_rows(),
            "objects": self._objects_of_ended(),
            "orphans": self._staged_without_rows(),
        }
        log.info("leftovers_removed", **removed)
        return removed

    def _staged_of_rows(self) -> int:
        """Staged bytes of pictures that are done, or failed too long ago to be replayed."""
        count = 0
        while True:
            with self._database.read() as session:
                rows = images.staged_leftovers(session, self._settings.staging_ttl_s, _AT_ONCE)
            if not rows:
                return count
            failed = self._staging.delete([row.staging_key or "" for row in rows])
            with self._database.begin() as session:
                images.forget_staged(session, [row.id for row in rows if row.staging_key not in failed])
            count += len(rows) - len(failed)
            if failed:
                return count

    def _objects_of_ended(self) -> int:
        """A run that was paused, or died before its row was written, may have left a picture's object after all."""
        count = 0
        left: list[int] = []
        try:
            while rows := self._take_unswept():
                count += len(rows)
                left += self._not_swept(rows)
        finally:
            with self._database.begin() as session:
                images.give_back_unswept(session, left)
        return count - len(left)

    def _take_unswept(self) -> Sequence[DreamImage]:
        with self._database.begin() as session:
            return images.take_unswept(session, _AT_ONCE)

    def _not_swept(self, rows: Sequence[DreamImage]) -> list[int]:
        """Delete every object that these pictures may have; the ids of those of which some could not be deleted."""
        keys = {row.id: keys_of(row.storage_key, row.variant_names) for row in rows if row.bucket}
        by_bucket: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row.bucket:
                by_bucket[row.bucket].update(keys[row.id])
        failed: set[str] = set(chain.from_iterable(map(self._not_deleted, by_bucket.items())))
        return [image_id for image_id, own in keys.items() if not failed.isdisjoint(own)]

    def _not_deleted(self, bucket_and_keys: tuple[str, set[str]]) -> Collection[str]:
        bucket, keys = bucket_and_keys
        try:
            return self._storage.delete(bucket, sorted(keys))
        except DreamError as error:
            log.warning("objects_left", bucket=bucket, count=len(keys), error=str(error))
            return keys

    def _staged_without_rows(self) -> int:
        """Bytes of uploads whose rows were never committed."""
        oldest = datetime.now(UTC) - timedelta(seconds=self._settings.staging_orphan_s)
        old = (key for key, written_at in self._staging.list_keys() if written_at < oldest)
        count = 0
        while batch := list(islice(old, _AT_ONCE)):
            count += self._remove_unreferenced(batch)
        return count

    def _remove_unreferenced(self, keys: Collection[str]) -> int:
        with self._database.read() as session:
            orphans = set(keys) - images.staged_keys(session, keys)
        return len(orphans) - len(self._staging.delete(sorted(orphans)))

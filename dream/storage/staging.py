"""Where uploaded bytes wait for their run (claim-check): the object store, or a folder that all parts share.

A key says where its bytes lie, so a team may set or unset `DREAM_STAGING_DIR` while pictures wait:

    staging/<YYYYMMDD>/<32 hex>               the object store
    staging/folder-<its id>/<32 hex>          the folder
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dream.errors import DreamError, ObjectStoreUnavailable
from dream.messages import STAGING_PREFIX
from dream.storage.folder import StagingFolder
from dream.storage.keys import new_staging_key

if TYPE_CHECKING:
    from dream.settings import Settings
    from dream.storage.s3 import Storage

__all__ = ["StagingArea"]


class StagingArea:
    """The staged bytes, wherever they lie.

    Parameters:
      settings: name the bucket and the folder.
      storage: the object store.
    """

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._bucket = settings.staging_bucket
        self._storage = storage

    def put(self, data: bytes) -> str:
        """Store bytes; returns their key.

        Raises:
          ObjectStoreUnavailable, AccessDenied, BucketMissing: nothing was stored.
        """
        if self._settings.staging_dir is not None:
            return self._folder.put(data)
        key = new_staging_key()
        self._storage.put_bytes(self._bucket, key, data)
        return key

    def fetch(self, key: str, path: Path) -> None:
        """Make the bytes stand at `path`.

        Raises:
          ObjectMissing: they are not there (any more).
          ObjectStoreUnavailable, AccessDenied, BucketMissing: they cannot be read now.
        """
        if StagingFolder.is_key(key):
            self._folder.fetch(key, path)
        else:
            self._storage.download(self._bucket, key, path)

    def delete(self, keys: Iterable[str]) -> dict[str, DreamError]:
        """Delete bytes; those that are not there count as deleted.

        Returns:
          The keys that could not be deleted, each with its error.

        Raises:
          DreamError: the object store did not answer.
        """
        by_place: dict[bool, list[str]] = {True: [], False: []}
        for key in keys:
            by_place[StagingFolder.is_key(key)].append(key)
        return self._delete_in_folder(by_place[True]) | self._storage.delete(self._bucket, by_place[False])

    def _delete_in_folder(self, keys: Sequence[str]) -> dict[str, DreamError]:
        try:
            return self._folder.delete(keys) if keys else {}
        except ObjectStoreUnavailable as error:
            return dict.fromkeys(keys, error)

    def list_keys(self) -> Iterator[tuple[str, datetime]]:
        """Every key, with the time at which its bytes were written."""
        in_folder = self._folder.list_keys() if self._settings.staging_dir is not None else ()
        return chain(self._storage.list_keys(self._bucket, STAGING_PREFIX), in_folder)

    @cached_property
    def _folder(self) -> StagingFolder:
        if self._settings.staging_dir is None:
            raise ObjectStoreUnavailable("the file was staged in a folder: set DREAM_STAGING_DIR to it here too")
        return StagingFolder(Path(self._settings.staging_dir))

"""The place of uploaded bytes until their run (claim-check): the object store, or a folder that all services share.

A key names the place of its bytes, so a team may set or unset `DREAM_STAGING_DIR` while pictures wait:

    staging/<YYYYMMDD>/<32 hex>               the object store
    staging/folder-<its id>/<32 hex>          the folder, on one machine's disk or a mounted volume

The folder holds:

    id            made once; keys contain it, so that another folder is never mistaken for this one
    .id/id        the first id that a process made; `id` is a copy of it (`StagingFolder._make`)
    <32 hex>      the bytes of one file
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from dream.errors import DreamError, ObjectMissing, ObjectStoreUnavailable
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.arguments import MAX_NAME_LENGTH, STAGING_PREFIX, EncodedFile, ImageFile, check_focus
from dream.storage.keys import new_staging_key

if TYPE_CHECKING:
    from dream.settings import Settings
    from dream.storage.s3 import Storage

__all__ = ["StagingArea", "StagingFolder"]

_PREFIX = f"{STAGING_PREFIX}folder-"
_KEY = re.compile(rf"{_PREFIX}(?P<folder>[0-9a-f]{{12}})/(?P<name>[0-9a-f]{{32}})")
_NAME = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(rb"[0-9a-f]{12}\n")

log = get_logger(__name__)


class StagingArea:
    """The staged bytes in both places.

    Parameters:
      settings: the bucket and the folder.
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

    @step("stage")
    def put_all(self, files: Sequence[ImageFile]) -> list[EncodedFile]:
        """Store the bytes of all files of a call, or of none; returns the files as messages name them.

        Raises:
          DreamError: they could not be stored.
        """
        staged: list[EncodedFile] = []
        try:
            for file in files:
                # One file's bytes at a time: a caller may read each from disk only when it is asked for.
                key = self.put(bytes(file["data"]))
                named: EncodedFile = {"name": file["name"][-MAX_NAME_LENGTH:], "staged": key}
                focus = check_focus(file.get("focus"), "focus")
                staged.append(named if focus is None else {**named, "focus": focus})
        except DreamError:
            self.discard([file["staged"] for file in staged])
            raise
        return staged

    def discard(self, keys: Sequence[str]) -> None:
        """Delete bytes that no row names; the nightly sweep deletes those that cannot be deleted now."""
        try:
            self.delete(keys)
        except DreamError as error:
            log.warning("staged_bytes_left", count=len(keys), error=str(error))

    def fetch(self, key: str, path: Path) -> None:
        """Put the bytes at `path`.

        Raises:
          ObjectMissing: they are not there (any more).
          ObjectStoreUnavailable, AccessDenied, BucketMissing: they cannot be read now.
        """
        if StagingFolder.is_key(key):
            self._folder.fetch(key, path)
        else:
            self._storage.download(self._bucket, key, path)

    def exists(self, key: str) -> bool:
        """Whether the bytes are there.

        Raises:
          ObjectStoreUnavailable, AccessDenied, BucketMissing: it is unknown now.
        """
        return self._folder.exists(key) if StagingFolder.is_key(key) else self._storage.exists(self._bucket, key)

    def keep(self, key: str, path: Path, bucket: str, target: str) -> None:
        """Store staged bytes, which are at `path` too, as an original.

        Raises:
          ObjectStoreUnavailable, AccessDenied, BucketMissing: they could not be stored.
        """
        if not StagingFolder.is_key(key):
            try:
                self._storage.copy_original(self._bucket, key, bucket, target)
            except ObjectMissing:
                pass  # the run of this path has fetched them before they went
            else:
                return
        self._storage.put_original(bucket, target, path)

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


# --- the folder


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The system's words without its path: a picture's owner may read them.
        raise ObjectStoreUnavailable(f"could not {action}", detail=error.strerror or type(error).__name__) from error


class StagingFolder:
    """The folder; safe to use from several threads and processes.

    Parameters:
      path: `DREAM_STAGING_DIR`; made if it is missing, for this user alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Whether this process has seen it: a folder that disappears is not made again.
        self._is_known = False

    @staticmethod
    def is_key(key: str) -> bool:
        """Whether the key's bytes lie in a folder."""
        return key.startswith(_PREFIX)

    def put(self, data: bytes) -> str:
        """Store bytes, on the disk when this returns.

        Returns:
          Their key.

        Raises:
          ObjectStoreUnavailable: the folder is not there or is full, and nothing was kept.
        """
        with _translated("stage a file"):
            key = _key(self._id(), uuid4().hex)
            path = self._path_of(key)
            try:
                _write(path, data)
                _sync(self._path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return key

    def fetch(self, key: str, path: Path) -> None:
        """Put the bytes at `path`, without a copy if that is on the same disk.

        Raises:
          ObjectMissing: they are not there (any more).
          ObjectStoreUnavailable: this machine does not see the folder in which they were staged.
        """
        with _translated("read a staged file"):
            try:
                _link_or_copy(self._path_of(key), path)
            except FileNotFoundError:
                raise ObjectMissing("could not read a staged file: no such file") from None

    def exists(self, key: str) -> bool:
        """Whether the bytes are there.

        Raises:
          ObjectStoreUnavailable: this machine does not see the folder in which they were staged.
        """
        with _translated("look for a staged file"):
            return self._path_of(key).exists()

    def delete(self, keys: Iterable[str]) -> dict[str, DreamError]:
        """Delete staged files; one that is not there counts as deleted. Returns the failed keys, with errors."""
        failed: dict[str, DreamError] = {}
        for key in keys:
            try:
                with _translated("delete a staged file"):
                    self._path_of(key).unlink(missing_ok=True)
            except DreamError as error:
                failed[key] = error
        return failed

    def list_keys(self) -> Iterator[tuple[str, datetime]]:
        """Every key, with the time at which its bytes were written."""
        with _translated("list staged files"):
            folder = self._read_id()
            for path in self._path.iterdir() if folder else ():
                if _NAME.fullmatch(path.name):
                    with suppress(FileNotFoundError):
                        yield _key(folder, path.name), datetime.fromtimestamp(path.stat().st_mtime, UTC)

    # --- which folder this is

    def _path_of(self, key: str) -> Path:
        form = _KEY.fullmatch(key)
        if form is None:
            raise ObjectMissing(f"no staged file has the key {key}")
        # Read each time: an unmounted volume leaves an empty folder, in which every file would be "missing".
        if form["folder"] != self._read_id():
            raise ObjectStoreUnavailable(
                "the file was staged in another folder: DREAM_STAGING_DIR must be one folder, on this disk or a shared "
                "volume, for the web layer, the workers and the scheduler"
            )
        return self._path / form["name"]

    def _id(self) -> str:
        """The id of the present folder; the first process makes it."""
        if not self._read_id() and not self._is_known:
            self._make()
        found = self._read_id()
        if not found:
            raise ObjectStoreUnavailable("DREAM_STAGING_DIR has no `id` (any more): is its volume mounted?")
        self._is_known = True
        return found

    def _make(self) -> None:
        """Settle the id, although other processes may try at the same moment, or died while they tried.

        No file system lets a rename replace a folder that is not empty. So the first folder that is renamed to `.id`
        stays, with the whole id in it, and every process copies it from there.
        """
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self._path / "id").exists():  # another process was faster, or the file is damaged: a person must look
            return
        mine, settled = self._path / f".id-{uuid4().hex}", self._path / ".id"
        try:
            mine.mkdir()
            _write(mine / "id", f"{uuid4().hex[:12]}\n".encode())
            try:
                mine.rename(settled)
            except OSError:
                if not (settled / "id").exists():
                    raise
            self._copy_id(settled / "id")
        finally:
            shutil.rmtree(mine, ignore_errors=True)

    def _copy_id(self, settled: Path) -> None:
        """Copy the settled id to its place in one step. An id that an older release wrote meanwhile stays."""
        copy = self._path / f".id-{uuid4().hex}"
        try:
            _write(copy, settled.read_bytes())
            try:
                os.link(copy, self._path / "id")
            except FileExistsError:
                pass
            except OSError:  # no hard links: all copies are equal, so it does not matter which rename is the last
                copy.rename(self._path / "id")
        finally:
            copy.unlink(missing_ok=True)

    def _read_id(self) -> str:
        """The folder's id; "" if it has none."""
        try:
            said = (self._path / "id").read_bytes()
        except FileNotFoundError:
            return ""
        return said.decode().strip() if _ID.fullmatch(said) else ""


def _key(folder: str, name: str) -> str:
    return f"{_PREFIX}{folder}/{name}"


def _write(path: Path, data: bytes) -> None:
    """Write a new file and sync it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, another owner, a file system without links
        shutil.copyfile(source, target)


def _sync(folder: Path) -> None:
    """Write the folder's own entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)

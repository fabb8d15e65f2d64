"""Uploaded bytes in a folder that the web layer and the workers share: one machine's disk, or a mounted volume.

<folder>/id            made once; a key carries it, so that another folder is never taken for this one
<folder>/.id/id        the same, where it was settled (see `_make`)
<folder>/<32 hex>      the bytes of one file
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from dream.errors import DreamError, ObjectMissing, ObjectStoreUnavailable
from dream.messages import STAGING_PREFIX

__all__ = ["StagingFolder"]

_PREFIX = f"{STAGING_PREFIX}folder-"
_KEY = re.compile(rf"{_PREFIX}(?P<folder>[0-9a-f]{{12}})/(?P<name>[0-9a-f]{{32}})")
_NAME = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(rb"[0-9a-f]{12}\n")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Its words without its path: what is said of an upload may reach the picture's owner.
        raise ObjectStoreUnavailable(f"could not {action}", detail=error.strerror or type(error).__name__) from error


class StagingFolder:
    """The folder; safe to use from several threads and processes.

    Parameters:
      path: `DREAM_STAGING_DIR`; made where it is missing, for this user alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Whether it was seen: one that is gone is not made anew.
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
        """Make the bytes stand at `path`, without a copy where that lies on the same disk.

        Raises:
          ObjectMissing: they are not there (any more).
          ObjectStoreUnavailable: this machine does not see the folder in which they were staged.
        """
        with _translated("read a staged file"):
            try:
                _link_or_copy(self._path_of(key), path)
            except FileNotFoundError:
                raise ObjectMissing("could not read a staged file: no such file") from None

    def delete(self, keys: Iterable[str]) -> dict[str, DreamError]:
        """Delete staged files; one that is not there counts as deleted. Returns what failed, with its error."""
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
        # Read each time: a volume that is not mounted leaves an empty folder, in which everything would be "missing".
        if form["folder"] != self._read_id():
            raise ObjectStoreUnavailable(
                "the file was staged in another folder: DREAM_STAGING_DIR must be one folder, on this disk or a shared "
                "volume, for the web layer, the workers and the scheduler"
            )
        return self._path / form["name"]

    def _id(self) -> str:
        """The id of the folder that is there now; the first who comes makes it."""
        if not self._read_id() and not self._is_known:
            self._make()
        found = self._read_id()
        if not found:
            raise ObjectStoreUnavailable("DREAM_STAGING_DIR has no `id` (any more): is its volume mounted?")
        self._is_known = True
        return found

    def _make(self) -> None:
        """Settle the id, also where others try at the same moment or died trying.

        On no file system can a rename replace a folder that is not empty. So the first folder that is renamed to `.id`
        holds the whole id for good, and everybody copies it from there.
        """
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self._path / "id").exists():  # another process was faster, or it is damaged and needs a human
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
        """Copy the settled id to its place in one step. An id that an older release has written meanwhile stays."""
        copy = self._path / f".id-{uuid4().hex}"
        try:
            _write(copy, settled.read_bytes())
            try:
                os.link(copy, self._path / "id")
            except FileExistsError:
                pass
            except OSError:  # no hard links; all copies are equal, so any rename may be the last
                copy.rename(self._path / "id")
        finally:
            copy.unlink(missing_ok=True)

    def _read_id(self) -> str:
        """The folder's id; "" where it has none."""
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

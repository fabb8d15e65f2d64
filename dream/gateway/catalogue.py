"""Rows of pictures for `/media/…`, kept for a short time, so that a busy picture costs no query for each view.

A row is kept for at most half of `DREAM_MEDIA_FORGET_S`, and a browser may keep the answer for the rest of this time:
together they show a deleted picture no longer than `DREAM_MEDIA_FORGET_S`. With 0 nothing is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from dream.db import DreamImage, images
from dream.messages.states import ImageState
from dream.storage.keys import (
    EXTENSIONS,
    is_documented_key,
    is_overwritten,
    object_key,
    stem_of_variant,
    variant_object_key,
)
from dream.storage.signing import SignedUrl

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.messages.pictures import StoredVariant
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["Catalogue", "ExpiringCache", "Row", "Shown"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: The longest time for which a row is kept, because other processes delete pictures, too; and the most rows.
_LONGEST_S, _MOST = 1.0, 10_000
#: The most whole rows, which take more memory.
_MOST_ROWS = 1000
#: A signed URL that browsers may not keep serves requests for this time.
_FRESH_S = 0.2


@dataclass(frozen=True, slots=True)
class Shown:
    """A stored picture, or a variant of it, as `/media/…` needs it.

    Parameters:
      bucket, key: the place of the object.
      filename: the name of the uploaded file.
      size_bytes: the size of the object; None in rows of old releases.
      tag: an entity tag; it changes with the object's bytes.
      may_change: whether a remake overwrites the object, because the public reads it without the gateway.
      read_at: a monotonic time before the row was read.
      signed: presigned URLs by method, with the monotonic time of each: signing costs more than the rest of a redirect.
    """

    image_id: int
    dream_id: int
    bucket: str
    key: str
    content_type: str | None
    size_bytes: int | None
    filename: str
    tag: str
    may_change: bool
    read_at: float
    signed: dict[str, tuple[SignedUrl, float]] = field(default_factory=dict, compare=False)

    def keep_s(self, forget_s: float) -> int:
        """Whole seconds, rounded up, for which a browser may still keep an answer made from this row."""
        return max(0, math.ceil(forget_s - (time.monotonic() - self.read_at)))

    def signed_url(self, method: str) -> SignedUrl | None:
        """The presigned URL of the object, and the time for which it may be kept from now on; None if it is too old."""
        url, signed_at = self.signed.get(method, (None, 0.0))
        if url is None:
            return None
        age_s = time.monotonic() - signed_at
        return SignedUrl(url.url, max(0, math.ceil(url.keep_s - age_s))) if age_s < max(url.keep_s, _FRESH_S) else None


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a stored picture, for its versions.

    Parameters:
      variant: the variant whose URL was asked for; None if it was the picture's.
      may_change, read_at: as in `Shown`.
    """

    image: DreamImage
    variant: StoredVariant | None
    may_change: bool
    read_at: float
    _made: dict[str, Shown] = field(default_factory=dict, compare=False)

    def shown(self, variant: StoredVariant | None) -> Shown:
        """The picture, or one of its variants, for `/media/…`."""
        url = variant["url"] if variant is not None else ""
        if url not in self._made:
            self._made[url] = _shown(self, variant)
        return self._made[url]


class ExpiringCache(Generic[K, V]):
    """Values that are read again after a time. Use it on one event loop.

    Several requests for one key wait for one read, which runs in a thread.

    Parameters:
      read: reads a value; None is not kept.
      keep_s: the time; 0 keeps nothing.
      most: the most values; the oldest goes first.
    """

    def __init__(self, read: Callable[[K], V | None], keep_s: float, most: int = _MOST) -> None:
        self._read = read
        self._keep_s = keep_s
        self._most = most
        self._values: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._reading: dict[K, asyncio.Task[V | None]] = {}

    def kept(self, key: K) -> V | None:
        """The value, if it is kept."""
        found = self._values.get(key)
        return found[0] if found is not None and time.monotonic() < found[1] else None

    async def find(self, key: K) -> V | None:
        """The value, kept or read."""
        value = self.kept(key)
        if value is not None:
            return value
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._keep(key))
            task.add_done_callback(lambda done: self._finish(key, done))
        return await asyncio.shield(task)

    async def _keep(self, key: K) -> V | None:
        until = time.monotonic() + self._keep_s
        value = await run_in_threadpool(self._read, key)
        # `forget` was called during this read, so the value may be older than the change.
        if value is not None and self._keep_s and self._reading.get(key) is asyncio.current_task():
            self._values[key] = value, until
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def _finish(self, key: K, task: asyncio.Task[V | None]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if not task.cancelled():
            task.exception()  # all who waited may have gone

    def forget(self, key: K) -> None:
        """Read the value again for the next request."""
        self._values.pop(key, None)
        self._reading.pop(key, None)


class Catalogue:
    """The pictures of `/media/…` in one process.

    Parameters:
      settings: the forget time.
      connections: to the rows and the objects.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self.keep_s = min(settings.media_forget_s / 2, _LONGEST_S)
        self._shown: ExpiringCache[str, Shown] = ExpiringCache(self._read, self.keep_s)
        self._rows: ExpiringCache[str, Row] = ExpiringCache(self._read_row, self.keep_s, _MOST_ROWS)

    async def find(self, key: str) -> Shown | None:
        """The picture or variant whose URL ends with this key; None if it is unknown, unfinished or deleted."""
        return await self._shown.find(key)

    async def row(self, key: str, *, again: bool = False) -> Row | None:
        """The row of the picture or variant whose URL ends with this key; None as for `find`.

        Parameters:
          again: read it in any case, because it has changed.
        """
        if again:
            self.forget_key(key)
        return await self._rows.find(key)

    def forget(self, image: DreamImage) -> None:
        """Read the row of a picture again, because it has changed: from now on a deleted one is gone."""
        for url in (image.url, *(variant["url"] for variant in image.variants or ())):
            if url:
                self.forget_key("/".join(url.rsplit("/", 3)[1:]))

    def forget_key(self, key: str) -> None:
        """Read the row of the picture or variant with this key again."""
        self._shown.forget(key)
        self._rows.forget(key)

    async def signed_url(self, shown: Shown, method: str) -> SignedUrl:
        """A presigned URL of a picture's object, signed anew if necessary."""
        signed = shown.signed_url(method)
        return signed if signed is not None else await run_in_threadpool(self._sign, shown, method)

    def _read(self, key: str) -> Shown | None:
        row = self._read_row(key)
        if row is None:
            return None
        shown = row.shown(row.variant)
        if self._settings.media_mode != "proxy":  # whose answers mostly need no URL
            self._sign(shown, "GET")
        return shown

    def _read_row(self, key: str) -> Row | None:
        read_at = time.monotonic()
        with self._connections.database.read() as session:
            image, variant = _row_of(session, key)
        if image is None or image.state != ImageState.COMPLETED or not image.bucket:
            return None
        return Row(image, variant, is_overwritten(self._settings, image), read_at)

    def _sign(self, shown: Shown, method: str) -> SignedUrl:
        """Sign a URL, in a thread: temporary credentials may have to be fetched."""
        signed = self._connections.storage.signed_url(shown.bucket, shown.key, method)
        shown.signed[method] = signed, time.monotonic()
        return signed


def _row_of(session: Session, key: str) -> tuple[DreamImage | None, StoredVariant | None]:
    """The row of the picture, or of the variant, whose URL ends with this key."""
    if is_documented_key(key):
        return images.by_key(session, key), None
    stem = stem_of_variant(key)
    image = images.by_stem(session, stem, EXTENSIONS) if stem else None
    listed = image.variants if image is not None else ()
    variant = next((each for each in listed if each["url"].endswith(f"/{key}")), None)
    if variant is None:
        # The variant was made anew in another format, and its former URL still shows it.
        variant = next((each for each in listed if key.startswith(f"{stem}_{each['name']}.")), None)
    return (image, variant) if variant is not None else (None, None)


def _shown(row: Row, variant: StoredVariant | None) -> Shown:
    image = row.image
    of: Any = variant if variant is not None else {"content_type": image.content_type, "size_bytes": image.size_bytes}
    key = variant_object_key(variant) if variant is not None else object_key(image)
    made = image.made_at if row.may_change else image.remakes
    said = f"{image.bucket}/{key} {made} {of['size_bytes']}"
    return Shown(
        image_id=image.id,
        dream_id=image.dream_id,
        bucket=image.bucket or "",
        key=key,
        content_type=of["content_type"],
        size_bytes=of["size_bytes"],
        filename=image.filename,
        tag=f'"{hashlib.sha256(said.encode()).hexdigest()[:24]}"',
        may_change=row.may_change,
        read_at=row.read_at,
    )

"""Copies of pictures in the memory of a gateway process (`DREAM_MEDIA_MEMORY_BYTES`).

    asked for ─► a whole copy: it answers
             └─► none: one task reads the object for all who ask meanwhile; each gets the bytes as they come

A copy is found by its entity tag, so it never shows another object. Rows decide whether there is a picture and who may
see it; a copy only saves the work of the store. A copy that a client reads counts until its last reader has gone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from dream.errors import DreamError, ObjectStoreUnavailable
from dream.observe.metrics import MEDIA_MEMORY, MEDIA_READS

if TYPE_CHECKING:
    from dream.gateway.catalogue import Shown
    from dream.gateway.objects import StoreAnswer
    from dream.settings import Settings

__all__ = ["CopyAnswer", "Memory"]

#: One picture takes at most one of this many parts of the memory.
_PARTS = 8
#: The longest life of a copy. Nobody is shown the copy of a deleted picture, but it takes memory.
_LONGEST_S = 300
#: A copy consists of pieces of this size. A slow client keeps only its last piece alive after the copy was dropped.
_PIECE_BYTES = 256 * 1024
#: Counted for a copy besides its object.
_OVERHEAD_BYTES = 4096


class _Unfit(Exception):
    """The store's answer is no whole object of the size in the row."""


class _Copy:
    """An object, as far as it has come from the store.

    Parameters:
      object_bytes: its size.
    """

    def __init__(self, object_bytes: int) -> None:
        self.object_bytes = object_bytes
        self.counted_bytes = object_bytes + _OVERHEAD_BYTES
        self.headers: dict[str, str] = {}
        self.is_whole = False
        self.error: Exception | None = None
        #: The number of clients, and of the task that reads the object.
        self.readers = 1
        self.is_dropped = False
        self.timer: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        self._tail = bytearray()
        self._news = asyncio.Event()

    def add(self, data: bytes) -> None:
        """Add bytes that came."""
        self._tail += data
        while len(self._tail) >= _PIECE_BYTES:
            self._pieces.append(bytes(self._tail[:_PIECE_BYTES]))
            del self._tail[:_PIECE_BYTES]
        self.tell()

    def finish(self) -> None:
        """Note that all bytes came."""
        self._pieces.append(bytes(self._tail))
        self._tail = bytearray()
        self.is_whole = True

    def after(self, at: int) -> bytes:
        """Bytes from this place on, as many as one piece has; empty if they did not come yet."""
        number, within = divmod(at, _PIECE_BYTES)
        return self._pieces[number][within:] if number < len(self._pieces) else bytes(self._tail[within:])

    def tell(self) -> None:
        """Wake all who wait for `more`."""
        self._news.set()
        self._news.clear()

    async def more(self) -> None:
        """Wait for the head, for bytes or for the end.

        Raises:
          ObjectStoreUnavailable: the store did not answer, or broke off.
          _Unfit: the object cannot be kept.
        """
        if self.error is None:
            await self._news.wait()
        if self.error is not None:
            raise self.error.with_traceback(None)


class CopyAnswer:
    """An answer from a copy, with the methods of `StoreAnswer`. Close it in any case."""

    status = 200

    def __init__(self, memory: Memory, copy: _Copy) -> None:
        copy.readers += 1
        self._memory = memory
        self._copy = copy
        self._at = 0
        self._is_closed = False

    @property
    def headers(self) -> dict[str, str]:
        """The store's headers about the object."""
        return self._copy.headers

    @property
    def is_read(self) -> bool:
        """Whether `piece` has given all."""
        return self._at == self._copy.object_bytes

    async def piece(self) -> bytes:
        """The next bytes of the object; empty at its end.

        Raises:
          ObjectStoreUnavailable: the store broke off.
        """
        while not (piece := self._copy.after(self._at)) and not self.is_read:
            await self._copy.more()
        self._at += len(piece)
        return piece

    async def head(self) -> None:
        """Wait until the store has answered. The errors are those of `_Copy.more`."""
        while not self._copy.headers:
            await self._copy.more()

    def close(self) -> None:
        """End the read. A second call changes nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._memory.release(self._copy)


class Memory:
    """The copies of one process. Use it on one event loop.

    There are none with `DREAM_MEDIA_FORGET_S=0`, and none with `DREAM_PUBLIC_URL`, where remakes overwrite objects.

    Parameters:
      settings: the most bytes, and the forget time.
    """

    def __init__(self, settings: Settings) -> None:
        self._keep_s = min(settings.media_forget_s, _LONGEST_S)
        self._most_bytes = settings.media_memory_bytes if self._keep_s and not settings.public_url else 0
        self._counted_bytes = 0
        #: By entity tag; the least recently used one is first.
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def whole(self, shown: Shown) -> CopyAnswer | None:
        """The object from memory, if it is here whole."""
        copy = self._copies.get(shown.tag)
        if copy is None or not copy.is_whole:
            return None
        return self._answer(shown.tag, copy)

    async def read(self, shown: Shown, ask: Callable[[], Awaitable[StoreAnswer]]) -> CopyAnswer | None:
        """The object from the store by a copy; None if it cannot be kept.

        Parameters:
          ask: asks the store for the whole object.

        Raises:
          ObjectStoreUnavailable: the store did not answer.
        """
        copy = self._copies.get(shown.tag)
        if copy is not None:
            answer = self._answer(shown.tag, copy)
        elif (copy := self._begin(shown, ask)) is not None:
            answer = CopyAnswer(self, copy)
        else:
            return None
        try:
            await answer.head()
        except _Unfit:
            answer.close()
            return None
        except BaseException:
            answer.close()
            raise
        return answer

    def _answer(self, tag: str, copy: _Copy) -> CopyAnswer:
        self._copies.move_to_end(tag)
        MEDIA_READS.add("memory")
        return CopyAnswer(self, copy)

    def _begin(self, shown: Shown, ask: Callable[[], Awaitable[StoreAnswer]]) -> _Copy | None:
        if not shown.size_bytes or shown.may_change or not self._most_bytes:
            return None
        copy = _Copy(shown.size_bytes)
        if copy.counted_bytes > self._most_bytes // _PARTS or not self._make_room(copy.counted_bytes):
            return None
        self._copies[shown.tag] = copy
        self._count(copy.counted_bytes)
        task = asyncio.create_task(self._fill(copy, ask), name="picture-copy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before it begins runs no line of its own.
        task.add_done_callback(lambda _: self._end(shown.tag, copy))
        return copy

    def _make_room(self, wanted_bytes: int) -> bool:
        """Drop the least recently used copies that nobody reads, until there is room; return whether there is."""
        while self._counted_bytes + wanted_bytes > self._most_bytes:
            tag = next((tag for tag, copy in self._copies.items() if not copy.readers), None)
            if tag is None:
                return False
            self._drop(tag, self._copies[tag])
        return True

    async def _fill(self, copy: _Copy, ask: Callable[[], Awaitable[StoreAnswer]]) -> None:
        try:
            answer = await ask()
            try:
                if answer.status != HTTPStatus.OK or answer.headers.get("content-length") != str(copy.object_bytes):
                    raise _Unfit
                copy.headers = answer.headers
                while data := await answer.piece():
                    copy.add(data)
                copy.finish()
            finally:
                answer.close()
        except (DreamError, _Unfit) as error:
            copy.error = error

    def _end(self, tag: str, copy: _Copy) -> None:
        if copy.is_whole:
            copy.timer = asyncio.get_running_loop().call_later(self._keep_s, self._drop, tag, copy)
        else:
            copy.error = copy.error or ObjectStoreUnavailable("could not read an object")
            self._drop(tag, copy)
        copy.tell()
        self.release(copy)

    def _drop(self, tag: str, copy: _Copy) -> None:
        del self._copies[tag]
        copy.is_dropped = True
        if copy.timer is not None:
            copy.timer.cancel()
        if not copy.readers:
            self._count(-copy.counted_bytes)

    def release(self, copy: _Copy) -> None:
        """Note that a reader of the copy has gone."""
        copy.readers -= 1
        if copy.is_dropped and not copy.readers:
            self._count(-copy.counted_bytes)

    def _count(self, change_bytes: int) -> None:
        self._counted_bytes += change_bytes
        MEDIA_MEMORY.set(self._counted_bytes)

    async def close(self) -> None:
        """End all reads from the store, and drop all copies."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tag, copy in list(self._copies.items()):
            self._drop(tag, copy)

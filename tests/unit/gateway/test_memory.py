"""Pictures in the gateway's memory: read once, bounded by bytes, and never a part for the whole."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dream.errors import ObjectStoreUnavailable
from dream.gateway.catalogue import Shown
from dream.gateway.memory import CopyAnswer, Memory
from dream.gateway.objects import Objects, StoreAnswer
from dream.settings import Settings

SIZE = 300_000
#: Room for eight pictures, each of which is just small enough.
MOST = 8 * (SIZE + 4096)


def picture(name: str, size_bytes: int | None = SIZE, *, may_change: bool = False) -> Shown:
    return Shown(1, 7, "bucket", name, "image/jpeg", size_bytes, "a.jpg", f'"{name}"', may_change, 0.0)


def body(name: str) -> bytes:
    return (name.encode() * SIZE)[:SIZE]


class Store:
    """A server that answers a path with `body`, and the client of it.

    Parameters:
      memory: what is tested.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.asked: list[str] = []
        self.connections = 0
        #: Sends the second half of an answer; cleared, it is not sent.
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.breaks_off = False
        self.status = b"200 OK"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError):
            await self._serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.connections -= 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            name = line.split()[1].decode().strip("/?")
            self.asked.append(name)
            await reader.readuntil(b"\r\n\r\n")
            data = body(name)
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (self.status, SIZE))
            writer.write(data[: SIZE // 2])
            await self.goes_on.wait()
            if self.breaks_off:
                break
            writer.write(data[SIZE // 2 :])

    def ask(self, name: str) -> Callable[[], Awaitable[StoreAnswer]]:
        return lambda: self.objects.get(f"http://127.0.0.1:{self.port}/{name}?", "GET", {})

    async def open(self, shown: Shown) -> CopyAnswer | None:
        return self.memory.whole(shown) or await self.memory.read(shown, self.ask(shown.key))

    async def get(self, name: str) -> bytes:
        answer = await self.open(picture(name))
        assert answer is not None
        return await rest_of(answer)

    @property
    def counted(self) -> int:
        return self.memory._counted_bytes


async def rest_of(answer: CopyAnswer) -> bytes:
    data = b""
    try:
        while not answer.is_read:
            data += await answer.piece()
        assert await answer.piece() == b""
        return data
    finally:
        answer.close()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Store]:
    changes = {"media_mode": "proxy", "media_memory_bytes": MOST, **settings}
    memory = Memory(Settings(**changes))
    store = Store(memory)
    store.objects = Objects(Settings(), ssl.create_default_context)
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    store.port = server.sockets[0].getsockname()[1]
    async with server:
        yield store
        store.goes_on.set()
        await memory.close()
        store.objects.close()
        await until(lambda: not store.connections)
        assert store.counted == 0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_thousand_first_visitors_read_the_store_once() -> None:
    async def check() -> None:
        async with running() as store:
            for found in await asyncio.gather(*(store.get("a") for _ in range(1000))):
                assert found == body("a")
            assert await store.get("a") == body("a")
            assert store.asked == ["a"]

    asyncio.run(check())


def test_bytes_are_passed_on_before_all_have_come() -> None:
    async def check() -> None:
        async with running() as store:
            store.goes_on.clear()
            answer = await store.open(picture("a"))
            assert answer is not None
            first = b""
            while len(first) < SIZE // 2:
                first += await answer.piece()
            assert not answer.is_read
            store.goes_on.set()
            assert first + await rest_of(answer) == body("a")

    asyncio.run(check())


def test_the_pictures_used_least_recently_go_first() -> None:
    async def check() -> None:
        async with running() as store:
            names = "abcdefgh"
            for name in names:
                await store.get(name)
            assert store.counted == MOST
            await store.get("a")
            await store.get("i")
            assert store.counted == MOST
            assert store.asked == [*names, "i"]
            for name in "acdefghi":
                await store.get(name)
            assert store.asked == [*names, "i"]
            await store.get("b")
            assert store.asked == [*names, "i", "b"]

    asyncio.run(check())


def test_a_picture_that_a_client_still_reads_counts_and_there_is_room_for_no_more() -> None:
    async def check() -> None:
        async with running() as store:
            slow = [await store.open(picture(name)) for name in "abcdefgh"]
            assert await store.open(picture("i")) is None
            assert store.counted == MOST
            for name, answer in zip("abcdefgh", slow, strict=True):
                assert answer is not None
                assert await rest_of(answer) == body(name)
            assert await store.get("i") == body("i")
            assert store.counted == MOST

    asyncio.run(check())


def test_a_reader_that_outlives_its_copy_counts_until_it_has_gone() -> None:
    async def check() -> None:
        async with running(media_forget_s=1) as store:
            answer = await store.open(picture("a"))
            assert answer is not None
            await until(lambda: not store.memory._copies)
            assert store.counted == SIZE + 4096
            assert await rest_of(answer) == body("a")
            answer.close()
            assert store.counted == 0

    asyncio.run(check())


def test_a_copy_lives_no_longer_than_the_forget_time() -> None:
    """Use does not prolong it: nobody sees the copy of a deleted picture, and it takes memory no longer."""

    async def check() -> None:
        async with running(media_forget_s=1) as store:
            await store.get("a")

            def is_gone() -> bool:
                answer = store.memory.whole(picture("a"))
                if answer is not None:
                    answer.close()
                return answer is None

            assert not is_gone()
            await until(is_gone)
            assert store.counted == 0
            await store.get("a")
            assert store.asked == ["a", "a"]

    asyncio.run(check())


def test_a_store_that_breaks_off_fails_all_who_wait_and_leaves_nothing() -> None:
    async def check() -> None:
        async with running() as store:
            store.goes_on.clear()
            store.breaks_off = True
            both = [await store.open(picture("a")) for _ in range(2)]
            store.goes_on.set()
            for answer in both:
                assert answer is not None
                with pytest.raises(ObjectStoreUnavailable, match="broke off"):
                    await rest_of(answer)
            assert store.counted == 0
            store.breaks_off = False
            assert await store.get("a") == body("a")

    asyncio.run(check())


def test_a_store_that_is_away_fails_all_who_wait() -> None:
    async def away() -> StoreAnswer:
        raise ObjectStoreUnavailable("it is away")

    async def check() -> None:
        async with running() as store:
            waiting = [asyncio.create_task(store.memory.read(picture("a"), away)) for _ in range(3)]
            for each in waiting:
                with pytest.raises(ObjectStoreUnavailable, match="it is away"):
                    await each
            assert store.counted == 0

    asyncio.run(check())


def test_a_client_that_goes_away_ends_nothing_for_others() -> None:
    async def check() -> None:
        async with running() as store:
            store.goes_on.clear()
            first = asyncio.create_task(store.get("a"))
            await until(lambda: store.asked == ["a"])
            second = asyncio.create_task(store.get("a"))
            await asyncio.sleep(0)
            first.cancel()
            store.goes_on.set()
            assert await second == body("a")
            with pytest.raises(asyncio.CancelledError):
                await first
            assert store.asked == ["a"]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"media_memory_bytes": 0}, picture("a")),
        ({"media_memory_bytes": MOST - 8}, picture("a")),
        ({"public_url": "https://cdn.example"}, picture("a")),
        ({"media_forget_s": 0}, picture("a")),
        ({}, picture("a", may_change=True)),
        ({}, picture("a", None)),
        ({}, picture("a", SIZE + 1)),
        ({}, picture("a", MOST)),
    ],
    ids=str,
)
def test_a_picture_that_cannot_be_kept_is_not_read_here(settings: dict[str, Any], shown: Shown) -> None:
    async def check() -> None:
        async with running(**settings) as store:
            assert await store.open(shown) is None
            assert store.asked == []

    asyncio.run(check())


def test_an_answer_that_is_not_the_whole_object_is_not_kept() -> None:
    """Another size than that of the row, or an error: the caller asks the store itself, and shows that answer."""

    async def check() -> None:
        async with running() as store:
            assert await store.open(picture("a", SIZE - 1)) is None
            store.status = b"404 Not Found"
            assert await store.open(picture("a")) is None
            assert store.counted == 0

    asyncio.run(check())


def test_a_read_that_is_cancelled_before_it_begins_leaves_nothing_and_nobody_waiting() -> None:
    async def check() -> None:
        async with running() as store:
            client = asyncio.create_task(store.get("a"))
            await asyncio.sleep(0)
            await store.memory.close()
            assert store.asked == []
            with pytest.raises(ObjectStoreUnavailable):
                await asyncio.wait_for(client, 20)
            assert store.counted == 0

    asyncio.run(check())

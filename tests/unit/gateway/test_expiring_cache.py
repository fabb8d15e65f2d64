"""Values that a gateway keeps for a while: one read for many requests, a limit, and nothing from before a change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from dream.gateway.catalogue import ExpiringCache


class Source:
    """A value that changes, and the number of times that it was read. A read waits while the source is shut."""

    def __init__(self) -> None:
        self.reads = 0
        self.value: str | None = "before"
        self.is_open = threading.Event()
        self.is_open.set()

    def read(self, key: str) -> str | None:
        self.reads += 1
        value = self.value
        assert self.is_open.wait(20)
        return f"{value} {key}" if value is not None else None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_crowd_waits_for_one_read_and_later_ones_for_none() -> None:
    source = Source()

    async def ask() -> None:
        cache: ExpiringCache[str, str] = ExpiringCache(source.read, keep_s=60)
        assert set(await asyncio.gather(*(cache.find("a") for _ in range(1000)))) == {"before a"}
        source.value = "after"
        assert await cache.find("a") == "before a"

    asyncio.run(ask())
    assert source.reads == 1


@pytest.mark.parametrize(("value", "keep_s"), [("before", 0), (None, 60)])
def test_a_missing_value_is_not_kept_and_without_a_time_none_is(value: str | None, keep_s: float) -> None:
    source = Source()
    source.value = value

    async def ask() -> None:
        cache: ExpiringCache[str, str] = ExpiringCache(source.read, keep_s)
        await cache.find("a")
        source.value = "after"
        assert await cache.find("a") == "after a"

    asyncio.run(ask())


def test_a_read_that_a_change_has_overtaken_is_not_kept() -> None:
    """The row was read, then the picture was deleted here, then the read ends: the next request reads again."""
    source = Source()
    source.is_open.clear()

    async def ask() -> None:
        cache: ExpiringCache[str, str] = ExpiringCache(source.read, keep_s=60)
        first = asyncio.create_task(cache.find("a"))
        await until(lambda: source.reads == 1)
        source.value = "after"
        cache.forget("a")
        source.is_open.set()
        assert await first == "before a"
        assert await cache.find("a") == "after a"

    asyncio.run(ask())


def test_a_visitor_who_goes_does_not_end_the_read_of_the_others() -> None:
    source = Source()
    source.is_open.clear()

    async def ask() -> None:
        cache: ExpiringCache[str, str] = ExpiringCache(source.read, keep_s=60)
        gone, stays = (asyncio.create_task(cache.find("a")) for _ in range(2))
        await until(lambda: source.reads == 1)
        gone.cancel()
        source.is_open.set()
        assert await stays == "before a"
        assert gone.cancelled()

    asyncio.run(ask())
    assert source.reads == 1


def test_the_oldest_value_goes_when_there_are_too_many() -> None:
    source = Source()

    async def ask() -> None:
        cache: ExpiringCache[str, str] = ExpiringCache(source.read, keep_s=60, most=2)
        for key in "abc":
            await cache.find(key)
        assert [cache.kept(key) is not None for key in "abc"] == [False, True, True]

    asyncio.run(ask())

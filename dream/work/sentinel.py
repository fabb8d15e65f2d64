"""Connections to the master of a service that sentinels watch.

    a new connection ─► each sentinel in turn: "where is the master?" ─► connect there
    READONLY, or a closed connection ─► the pool's idle connections are closed, too ─► ask again
    once a second in use ─► ask again: another master? ─► likewise

After an ordered failover the old master takes commands for ten seconds more, and forgets them then. So a pool that is
in use asks once a second. A subscription moves when the old master forgets.

redis-py has the pools. Here a lookup has a connection of its own, and its errors are sentences.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool as StockAsyncPool
from redis.asyncio.sentinel import SentinelManagedConnection as StockAsyncConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection as StockAsyncTlsConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool as StockPool
from redis.sentinel import SentinelManagedConnection as StockConnection
from redis.sentinel import SentinelManagedSSLConnection as StockTlsConnection

if TYPE_CHECKING:
    from dream.settings.sentinel import SentinelUrl

__all__ = ["AsyncMasterPool", "MasterPool", "UnknownService"]

#: Sentinels answer at once. A silent one is passed over, and asked last from then on.
_ANSWER_S = 1.0
#: A pool in use asks again after this time; after the second one, if no sentinel answers.
_EVERY_S = 1.0
_AWAY_S = 15.0


class UnknownService(RedisConnectionError):
    """The sentinels answer, and none watches a service of that name."""


class _Sentinels:
    """The sentinels of a URL. redis-py asks it for the master; all threads of the process share it."""

    def __init__(self, url: SentinelUrl) -> None:
        self._hosts = url.hosts
        self._urls = list(url.sentinels)
        self._master: tuple[str, int] | None = None
        self._ask_at = 0.0

    def discover_master(self, service: str) -> tuple[str, int]:
        """The address of the service's master.

        Raises:
          UnknownService: sentinels answer, and none knows the service.
          RedisError: no sentinel answers.
        """
        known: set[str] = set()
        errors: list[str] = []
        for url in list(self._urls):
            try:
                with closing(_client_of(url)) as sentinel:
                    found: Any = sentinel.sentinel_get_master_addr_by_name(service)
                    if found:
                        self._urls = [url, *(other for other in self._urls if other != url)]
                        self._master = found[0], found[1]
                        self._ask_at = time.monotonic() + _EVERY_S
                        return self._master
                    known.update(sentinel.sentinel_masters())
            except RedisError as error:
                errors.append(str(error))
        if errors and not known:
            raise RedisConnectionError(f"no sentinel answers of {', '.join(self._hosts)}: {errors[0]}")
        names = f", but {', '.join(sorted(known))}" if known else ""
        raise UnknownService(f"the sentinels watch no service {service!r}{names}")

    def is_due(self) -> bool:
        """Whether the last answer is so old that `still_at` asks."""
        return time.monotonic() >= self._ask_at

    def still_at(self, service: str, master: object) -> bool:
        """Whether that is still the master's address; sentinels that do not answer change nothing."""
        if self.is_due():
            self._ask_at = time.monotonic() + _AWAY_S  # other threads do not ask meanwhile
            with suppress(RedisError):
                self.discover_master(service)
        return self._master == master


@lru_cache(maxsize=16)
def _sentinels(url: SentinelUrl) -> _Sentinels:
    return _Sentinels(url)


class _AsyncSentinels:
    """The same for an event loop, in a thread."""

    def __init__(self, url: SentinelUrl) -> None:
        self._sentinels = _sentinels(url)

    async def discover_master(self, service: str) -> tuple[str, int]:
        return await asyncio.to_thread(self._sentinels.discover_master, service)

    async def still_at(self, service: str, master: object) -> bool:
        ask = partial(self._sentinels.still_at, service, master)
        return await asyncio.to_thread(ask) if self._sentinels.is_due() else ask()


def _client_of(url: str) -> Any:
    return Redis.from_url(
        url,
        socket_connect_timeout=_ANSWER_S,
        socket_timeout=_ANSWER_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=True,
    )


# A connection of redis-py's that was lost goes back to the same server when it is used once more. These ask first.


class _Connection(StockConnection):
    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self.connect()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


class _TlsConnection(_Connection, StockTlsConnection):
    pass


class _AsyncConnection(StockAsyncConnection):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        await self.connect()  # type: ignore[no-untyped-call]
        await super().send_packed_command(command, check_health)


class _AsyncTlsConnection(_AsyncConnection, StockAsyncTlsConnection):
    pass


class MasterPool(StockPool):
    """Connections to the master of a URL's service.

    Parameters:
      how: of the connections, in redis-py's words.
    """

    def __init__(self, url: SentinelUrl, *, is_tls: bool, **how: Any) -> None:
        kind = _TlsConnection if is_tls else _Connection
        super().__init__(  # type: ignore[no-untyped-call]
            url.service, _sentinels(url), connection_class=kind, **how
        )

    def get_connection(self, *command: Any, **options: Any) -> Any:
        """A connection to the present master."""
        self.follow()
        return super().get_connection(*command, **options)

    def follow(self) -> None:
        """Close the idle connections to a former master; those in use are closed when they are released."""
        master = self.master_address
        if master is not None and not self.sentinel_manager.still_at(self.service_name, master):
            self.get_master_address()  # type: ignore[no-untyped-call]


class AsyncMasterPool(StockAsyncPool, BlockingConnectionPool):
    """The same for an event loop; a command waits for a free connection."""

    def __init__(self, url: SentinelUrl, *, is_tls: bool, **how: Any) -> None:
        kind = _AsyncTlsConnection if is_tls else _AsyncConnection
        super().__init__(  # type: ignore[no-untyped-call]
            url.service, _AsyncSentinels(url), connection_class=kind, **how
        )

    async def get_connection(self, *command: Any, **options: Any) -> Any:
        """A connection to the present master."""
        master = self.master_address
        if master is not None and not await self.sentinel_manager.still_at(self.service_name, master):
            await self.get_master_address()  # type: ignore[no-untyped-call]
        return await super().get_connection(*command, **options)  # type: ignore[no-untyped-call]

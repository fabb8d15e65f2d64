"""Clients of Redis that give up soon, because a caller or a run waits, and Lua scripts that Redis runs.

Every client of dream is made here, also behind sentinels (`dream.work.sentinel`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream.errors import SettingsError
from dream.log import redact
from dream.observe.metrics import REDIS_ERRORS, REDIS_SECONDS

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

    from dream.settings.sentinel import SentinelUrl

__all__ = ["CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S", "RedisScript", "connect", "connect_async", "master_of"]

CONNECT_TIMEOUT_S = 2
SOCKET_TIMEOUT_S = 5
#: A connection that was used within this many seconds counts as alive.
_RECENT_S = 1.0


def connect(url: str, *, repeats: bool = True, **more: Any) -> Redis:
    """Make a client, which connects when it is first used; the first client imports redis-py.

    Parameters:
      repeats: send a command once more on a new connection, for example after a restart of the server has closed a
        pooled one. Not for commands that must not run twice, or whose lost reply carried something.
      more: parameters of redis-py.

    Raises:
      SettingsError: the URL has an option that redis-py does not know, or a value that it cannot read.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    how = _how(url, {"retry": Retry(NoBackoff(), int(repeats)), **more})
    with _told(url):
        if sentinels := _at_master(url, how):
            from dream.work.sentinel import MasterPool

            client = Redis.from_pool(MasterPool(sentinels[0], **sentinels[1]))
        else:
            client = Redis.from_url(url, **how)
    _check_options(client, url)
    return client


def connect_async(url: str, *, max_connections: int, timeout_s: float, **more: Any) -> AsyncRedis:
    """Make a client for an event loop. It repeats a command once on a new connection.

    Parameters:
      max_connections: further commands wait for a connection, for at most `timeout_s`.
      more: parameters of redis-py.

    Raises:
      SettingsError: the URL has an option that redis-py does not know, or a value that it cannot read.
    """
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    how = _how(url, {"retry": Retry(NoBackoff(), 1), **more})
    how |= {"max_connections": max_connections, "timeout": timeout_s}
    with _told(url):
        if sentinels := _at_master(url, how):
            from dream.work.sentinel import AsyncMasterPool

            client = Redis.from_pool(AsyncMasterPool(sentinels[0], **sentinels[1]))
        else:
            client = Redis.from_pool(BlockingConnectionPool.from_url(url, **how))
    _check_options(client, url)
    return client


def master_of(client: Redis | AsyncRedis) -> object:
    """The address of the master that the client last found by its sentinels; None without sentinels."""
    pool = client.connection_pool
    return getattr(getattr(pool, "proxy", pool), "master_address", None)


def _how(url: str, more: dict[str, Any]) -> dict[str, Any]:
    # Protocol 2, because a Redis before 6 knows no other, and Celery's may be that old.
    how = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": SOCKET_TIMEOUT_S, "protocol": 2, **more}
    if not url.startswith("unix"):
        how.setdefault("socket_keepalive", True)
    return how


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Name the URL, without its password, in an error about a value in it, such as `?db=one`."""
    try:
        yield
    except ValueError as error:
        raise SettingsError(f"{redact(url)} is wrong: {error}") from None


def _check_options(client: Redis | AsyncRedis, url: str) -> None:
    """Check the options of the URL: redis-py itself would complain only when it connects."""
    from redis.exceptions import RedisError

    pool: Any = client.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (RedisError, TypeError, ValueError) as error:
        reason = f"the option {str(error).split()[-1]} is not known" if isinstance(error, TypeError) else error
        raise SettingsError(f"{redact(url)} is wrong: {reason}") from None


def _at_master(url: str, how: dict[str, Any]) -> tuple[SentinelUrl, dict[str, Any]] | None:
    """The sentinels of a URL, and how to connect to their master; None if the URL names none."""
    from redis.connection import parse_url

    from dream.settings.sentinel import SentinelUrl, is_sentinel

    if not is_sentinel(url):
        return None
    found = SentinelUrl.parse(url)
    parsed = {**how, **parse_url(found.master)}  # type: ignore[no-untyped-call]
    del parsed["host"]
    return found, {"is_tls": parsed.pop("connection_class", None) is not None, **parsed}


class RedisScript:
    """A Lua script, for calls that are made for each task. It never sends a call twice by itself.

    redis-py spends more time around a command (metrics, callbacks, a look at the connection) than the command takes.

    Parameters:
      client: its connections are used.
      paths: the script's file, after the files that it begins with.
    """

    def __init__(self, client: Redis, *paths: Path) -> None:
        self._name = paths[-1].stem
        self._pool: Any = client.connection_pool
        #: Finds out, behind sentinels, whether there is another master.
        self._follow: Callable[[], None] = getattr(self._pool, "follow", lambda: None)
        self._text = "".join(path.read_text("utf-8") for path in paths)
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        #: Connections that no thread uses now, each with its process and the time of its last use.
        self._recent: list[tuple[Any, int, float]] = []

    def __call__(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run it.

        Raises:
          RedisError
        """
        began = time.perf_counter()
        try:
            answer = self._call(keys, args)
        except BaseException:
            REDIS_ERRORS.add()
            raise
        REDIS_SECONDS.observe(time.perf_counter() - began, self._name)
        return answer

    def _call(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        from redis.exceptions import ResponseError

        connection = self._take()
        try:
            answer = self._run(connection, keys, args)
        except ResponseError:
            self._keep(connection)
            raise
        except BaseException:
            connection.disconnect()  # otherwise the next call would read this answer
            self._pool.release(connection)  # which finds the master again, if another one serves now
            raise
        self._keep(connection)
        return answer

    def _run(self, connection: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return _answer(connection, "EVALSHA", self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return _answer(connection, "EVAL", self._text, len(keys), *keys, *args)

    def _keep(self, connection: Any) -> None:
        self._recent.append((connection, os.getpid(), time.monotonic()))

    def _take(self) -> Any:
        self._follow()
        with suppress(IndexError):
            while True:
                connection, process_id, used_at = self._recent.pop()
                is_recent = process_id == os.getpid() and time.monotonic() - used_at < _RECENT_S
                if is_recent and self._pool.owns_connection(connection):
                    return connection
                self._pool.release(connection)
        return self._pool.get_connection()


def _answer(connection: Any, *command: Any) -> Any:
    connection.send_command(*command)
    return connection.read_response()

"""Running schedulers and gateways: each registers in Redis every 10 s, and `dream doctor` reads it.

<prefix>:parts    a sorted set: `<part>@<host>:<process>`, scored by its last registration, by Redis's clock

Workers listen, so they are asked instead (`dream.questions`). While Redis is away, nothing registers or waits.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dream.errors import SettingsError
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["NO_CLUSTER", "Presence", "is_cluster", "parts_there", "refuse_cluster"]

NO_CLUSTER = "dream's scripts use several keys at once; use one Redis or Valkey (with replicas, if you like)"

_EVERY_S = 10.0
#: A part that has not registered for this long is gone.
_GONE_AFTER_S = 35.0


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:parts"


class Presence:
    """Inside, a thread keeps this process registered.

    Parameters:
      part: `scheduler` or `gateway`.
    """

    def __init__(self, settings: Settings, part: str) -> None:
        self._settings = settings
        self._member = f"{part}@{socket.gethostname()}:{os.getpid()}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> Presence:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        from redis import RedisError

        with closing(connect(self._settings.events_url)) as client:
            is_last = False
            while not is_last:
                is_last = self._stopped.is_set()
                with suppress(RedisError):
                    self._say(client, is_last)
                self._stopped.wait(_EVERY_S)

    def _say(self, client: Any, is_last: bool) -> None:
        key = _key(self._settings)
        if is_last:
            client.zrem(key, self._member)
            return
        now_s = client.time()[0]
        with client.pipeline(transaction=False) as batch:
            batch.zadd(key, {self._member: now_s})
            batch.zremrangebyscore(key, "-inf", now_s - _GONE_AFTER_S)
            batch.execute()


def parts_there(settings: Settings) -> dict[str, list[str]]:
    """The names of running processes, by part.

    Raises:
      RedisError: Redis is away.
    """
    with closing(connect(settings.events_url, decode_responses=True)) as client:
        now_s = client.time()[0]
        members = client.zrangebyscore(_key(settings), now_s - _GONE_AFTER_S, "+inf")
    there: dict[str, list[str]] = {}
    for member in sorted(members):
        part, _, name = str(member).partition("@")
        there.setdefault(part, []).append(name)
    return there


def refuse_cluster(settings: Settings) -> None:
    """Refuse to start on Redis Cluster, whose nodes hold a part of the keys each. A server that is away passes.

    Raises:
      SettingsError: a variable names a node of a cluster.
    """
    from redis import RedisError

    urls = {"DREAM_REDIS_URL": settings.events_url}
    if settings.is_redis_broker:
        urls["DREAM_BROKER_URL"] = settings.broker_url
    for name, url in urls.items():
        with closing(connect(url, repeats=False)) as client, suppress(RedisError):
            if is_cluster(client.info("server")):
                raise SettingsError(f"{name} names a node of a Redis Cluster: {NO_CLUSTER}")


def is_cluster(about: dict[str, Any]) -> bool:
    """Whether this `INFO server` comes from a node of Redis Cluster."""
    return "cluster" in (about.get("redis_mode"), about.get("server_mode"))

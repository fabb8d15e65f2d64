"""Running schedulers, gateways and bridges: each registers in Redis every 10 s, and `dream doctor` reads the list.

<prefix>:parts    a sorted set: `<service>@<host>:<process> <version>`, scored by its last registration (Redis's clock)

Workers listen, so they are asked instead (`dream.work.questions`). While Redis is away, nothing registers or waits.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.errors import SettingsError
from dream.log import redact
from dream.version import __version__
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = ["NO_CLUSTER", "Part", "Presence", "is_cluster", "refuse_wrong_redis", "services_there"]

NO_CLUSTER = "dream's scripts use several keys at once; use one Redis or Valkey (with replicas, if you like)"

_EVERY_S = 10.0
#: Seconds without a registration after which a process counts as gone.
_GONE_AFTER_S = 35.0


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:parts"


class Presence:
    """Inside the `with` block, a thread keeps this process registered.

    Parameters:
      service: `scheduler`, `gateway` or `bridge`.
    """

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._member = f"{service}@{socket.gethostname()}:{os.getpid()} {__version__}"
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
                    self._register(client, is_last)
                self._stopped.wait(_EVERY_S)

    def _register(self, client: Any, is_last: bool) -> None:
        key = _key(self._settings)
        if is_last:
            client.zrem(key, self._member)
            return
        now_s = client.time()[0]
        with client.pipeline(transaction=False) as batch:
            batch.zadd(key, {self._member: now_s})
            batch.zremrangebyscore(key, "-inf", now_s - _GONE_AFTER_S)
            batch.execute()


class Part(NamedTuple):
    """A running process.

    Parameters:
      name: host and process.
      version: of dream; None from a release that did not write it.
    """

    name: str
    version: str | None


def services_there(settings: Settings) -> dict[str, list[Part]]:
    """The running processes, by service.

    Raises:
      RedisError: Redis is away.
    """
    with closing(connect(settings.events_url, decode_responses=True)) as client:
        now_s = client.time()[0]
        members = client.zrangebyscore(_key(settings), now_s - _GONE_AFTER_S, "+inf")
    there: dict[str, list[Part]] = {}
    for member in sorted(members):
        service, _, rest = str(member).partition("@")
        name, _, version = rest.partition(" ")
        there.setdefault(service, []).append(Part(name, version or None))
    return there


def refuse_wrong_redis(settings: Settings) -> None:
    """Refuse to start where no waiting helps. A server that is away passes.

    Raises:
      SettingsError: a variable names a node of Redis Cluster, whose nodes have some of the keys each; or a service that
        its sentinels do not watch; or an option that redis-py does not know.
    """
    from redis import RedisError

    from dream.work.sentinel import UnknownService

    names = {settings.events_url: "DREAM_REDIS_URL"}
    if settings.is_redis_broker:
        names[settings.broker_url] = "DREAM_BROKER_URL"
    for url, name in names.items():
        try:
            with closing(connect(url, repeats=False)) as client:
                about: Any = client.info("server")
        except SettingsError as error:
            raise SettingsError(f"{name}={error}") from None
        except UnknownService as error:
            raise SettingsError(f"{name}={redact(url)} is wrong: {error}") from None
        except RedisError:
            continue
        if is_cluster(about):
            raise SettingsError(f"{name} names a node of a Redis Cluster: {NO_CLUSTER}")


def is_cluster(about: dict[str, Any]) -> bool:
    """Whether this `INFO server` comes from a node of Redis Cluster."""
    return "cluster" in (about.get("redis_mode"), about.get("server_mode"))

"""Clients of Redis, which give up soon: whoever asks has a caller, or a run, that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S", "connect"]

CONNECT_TIMEOUT_S = 2
SOCKET_TIMEOUT_S = 5


def connect(url: str, *, repeats: bool = True, **more: Any) -> Redis:
    """A client, which connects when it is used; redis-py is imported with the first.

    Parameters:
      repeats: send a command once more on a new connection, as where a restart of the server has closed a pooled one.
        Not where that would do something twice, or lose what a lost reply carried.
      more: as redis-py takes it.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    how = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": SOCKET_TIMEOUT_S, **more}
    if not url.startswith("unix"):
        how.setdefault("socket_keepalive", True)
    # Protocol 2, for a Redis before 6 knows no other: Celery's may be one.
    return Redis.from_url(url, retry=Retry(NoBackoff(), int(repeats)), protocol=2, **how)

"""A client of Redis that gives up soon: whoever asks has a caller, or a run, that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S", "connect"]

CONNECT_TIMEOUT_S = 2
SOCKET_TIMEOUT_S = 5


def connect(url: str, **more: Any) -> Redis:
    """A client, which connects when it is used; redis-py is imported with the first.

    Parameters:
      more: as redis-py takes it.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # One more try, for a pooled connection that a restart of the server has closed.
    how = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": SOCKET_TIMEOUT_S, **more}
    return Redis.from_url(url, retry=Retry(NoBackoff(), 1), protocol=2, **how)

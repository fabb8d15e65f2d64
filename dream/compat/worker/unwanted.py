"""Messages that no worker runs: those of revoked tasks, and copies of a delivery.

control.revoke ─► sorted set in Redis, by time ─► each worker reads it at its start and every few seconds
               └─► the question "revoke" tells every running worker at once

RabbitMQ cannot tell whether it has a delivery already, so the bridge marks the copies that it sends there. All workers
together run the copy that comes first, and drop the others. A copy may come again after its worker has died.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from dream.compat.options import MAX_DELAY_S
from dream.errors import ResultsUnavailable
from dream.log import get_logger
from dream.work.messages import COPY, DELIVERY_ID
from dream.work.patience import for_a_minute
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "Copies",
    "Revoked",
    "revoke",
    "revoked_among",
]

# --- revoked tasks


log = get_logger(__name__)

_LOOK_EVERY_S = 5.0


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:revoked"


def _client(settings: Settings) -> Redis:
    # Bytes that are no text must not end the thread.
    return connect(settings.events_url, decode_responses=True, encoding_errors="replace")


def revoke(settings: Settings, task_ids: Iterable[str]) -> None:
    """Store the ids of revoked tasks.

    Raises:
      RedisError
    """
    now = time.time()
    with closing(_client(settings)) as client:
        client.zadd(_key(settings), dict.fromkeys(task_ids, now))
        client.zremrangebyscore(_key(settings), "-inf", now - MAX_DELAY_S)  # no task waits for longer


def revoked_among(settings: Settings, task_ids: Sequence[str]) -> set[str]:
    """The ids among these of revoked tasks.

    Raises:
      RedisError
    """
    if not task_ids:
        return set()
    with closing(_client(settings)) as client:
        found: Any = client.zmscore(_key(settings), list(task_ids))
    return {task_id for task_id, at in zip(task_ids, found, strict=True) if at is not None}


class Revoked:
    """The revoked tasks that one worker process knows: `task_id in revoked`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ids: set[str] = set()
        self._stopped = threading.Event()
        self._seen_until = 0.0

    def start(self) -> None:
        """Read the ids now, and every few seconds in a thread."""
        self._read()
        threading.Thread(target=self._read_on, name="revoked", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def add(self, task_ids: Iterable[str]) -> None:
        """Add ids."""
        self._ids.update(task_ids)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def _read_on(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            self._read()

    def _read(self) -> None:
        client = _client(self._settings)
        try:
            since: Any = self._seen_until or "-inf"
            found: Any = client.zrange(_key(self._settings), since, "+inf", byscore=True, withscores=True)
        except RedisError as error:
            log.warning("revoked_tasks_not_known", error=str(error))
            return
        finally:
            client.close()
        for task_id, revoked_at in found:
            self._ids.add(task_id)
            # Clocks differ: read from a minute before the last id on.
            self._seen_until = max(self._seen_until, revoked_at - 60)


# --- copies


#: A killed bridge is started again within this time.
_COPIES_KEPT_S = 86400


class Copies:
    """The first copy of each delivery, in Redis.

    Parameters:
      settings: name the Redis.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: Any = connect(settings.events_url)
        self._prefix = f"{settings.redis_prefix}:bridge:first:"

    def is_another(self, message: Any) -> bool:
        """Whether another copy of the message's delivery came first.

        Raises:
          ResultsUnavailable: Redis was away for a minute.
        """
        copy = message.options.get(COPY)
        if copy is None:
            return False
        first: bytes | None = for_a_minute(lambda: self._first(message.options[DELIVERY_ID], copy))
        return first is not None and first != copy.encode()

    def _first(self, delivery: str, copy: str) -> Any:
        key = self._prefix + delivery
        try:
            if self._client.set(key, copy, nx=True, ex=_COPIES_KEPT_S):
                return copy.encode()
            return self._client.get(key)
        except RedisError as error:
            raise ResultsUnavailable(f"copies cannot be told apart: {type(error).__name__}") from error

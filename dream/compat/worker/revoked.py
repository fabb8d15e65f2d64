"""The ids of revoked tasks: kept in Redis, known to every worker.

control.revoke ─► sorted set, by time ─► each worker, at its start and every few seconds
               └─► "revoke" is asked of every worker, which knows at once
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
from dream.log import get_logger
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Revoked", "revoke", "revoked_among"]

log = get_logger(__name__)

_LOOK_EVERY_S = 5.0


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:revoked"


def _client(settings: Settings) -> Redis:
    # Bytes that are no text are no id of a task, and no end of the thread.
    return connect(settings.events_url, decode_responses=True, encoding_errors="replace")


def revoke(settings: Settings, task_ids: Iterable[str]) -> None:
    """Write down that tasks are revoked.

    Raises:
      RedisError
    """
    now = time.time()
    with closing(_client(settings)) as client:
        client.zadd(_key(settings), dict.fromkeys(task_ids, now))
        client.zremrangebyscore(_key(settings), "-inf", now - MAX_DELAY_S)  # no task waits for longer


def revoked_among(settings: Settings, task_ids: Sequence[str]) -> set[str]:
    """Which of these tasks have been revoked.

    Raises:
      RedisError
    """
    if not task_ids:
        return set()
    with closing(_client(settings)) as client:
        found: Any = client.zmscore(_key(settings), list(task_ids))
    return {task_id for task_id, at in zip(task_ids, found, strict=True) if at is not None}


class Revoked:
    """What one worker process knows of them: `task_id in revoked`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ids: set[str] = set()
        self._stopped = threading.Event()
        self._seen_until = 0.0

    def start(self) -> None:
        """Learn what is known, and go on learning beside the caller."""
        self._learn()
        threading.Thread(target=self._go_on, name="revoked", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def add(self, task_ids: Iterable[str]) -> None:
        """Know of more."""
        self._ids.update(task_ids)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def _go_on(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            self._learn()

    def _learn(self) -> None:
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
            # Clocks differ: look a minute back each time.
            self._seen_until = max(self._seen_until, revoked_at - 60)

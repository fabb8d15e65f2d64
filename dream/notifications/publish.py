"""Events into Redis: one stream a dream, one channel that wakes the gateways.

The socket is a courtesy: whoever publishes learns whether it worked and never fails because it did not.
Redis is imported when the first event is published, so that web processes stay light.
"""

from __future__ import annotations

import json
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from dream.log import get_logger
from dream.notifications import keys
from dream.redis_client import connect
from dream.redis_script import RedisScript

if TYPE_CHECKING:
    from redis import Redis

    from dream.messages import ImageUpdate
    from dream.settings import Settings

__all__ = ["Publisher"]

_CONNECT_TIMEOUT_S = 1
_SOCKET_TIMEOUT_S = 2
#: How long a task's appended events are remembered. Only a run that was paused or cut off for longer repeats one.
_TOLD_S = 3600
#: How long an unnamed event is told from its own repetition (a retry after a lost reply).
_UNNAMED_ONCE_S = 60

log = get_logger(__name__)


class Publisher:
    """Publishes the events of one process; safe to share between threads.

    Parameters:
      settings: where Redis is, how long and how many events it keeps.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()

    @cached_property
    def _client(self) -> Redis:
        return connect(
            self._settings.events_url,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            decode_responses=True,
        )

    @cached_property
    def _append(self) -> RedisScript:
        return RedisScript(self._client, Path(__file__).with_name("append.lua"))

    def publish(self, update: ImageUpdate, *, once: str | None = None) -> bool:
        """Append an event to its dream's stream and wake the gateways.

        After a task's end nothing of its course is appended: a run that was paused until another had finished its work
        would have the last word.

        Parameters:
          update: the event.
          once: a name, such as `<task id>:completed`; an event of that name is appended only the first time.

        Returns:
          Whether the event is in the stream, from now or from before. False means that Redis did not take it.
        """
        from redis.exceptions import RedisError

        try:
            self._run(update, once)
        except RedisError as error:
            log.warning("event_not_published", dream_id=update.dream_id, status=str(update.status), error=str(error))
            return False
        return True

    def _run(self, update: ImageUpdate, once: str | None) -> None:
        from redis.exceptions import ConnectionError as Disconnected
        from redis.exceptions import TimeoutError as Unanswered

        settings, dream_id = self._settings, update.dream_id
        with self._lock:  # `cached_property` takes no lock of its own
            append = self._append
        prefix, task_id = settings.redis_prefix, update.task_id or ""
        name = once or uuid4().hex
        keys_of_event = [
            keys.stream(prefix, dream_id),
            keys.told(prefix, task_id or name),
            keys.once_key(prefix, dream_id, name),
            keys.end_key(prefix, dream_id, task_id),
        ]
        event = [
            json.dumps(update.as_message(), separators=(",", ":"), ensure_ascii=False),
            settings.events_max_length,
            settings.events_ttl_s,
            min(settings.events_ttl_s, _TOLD_S) if once or task_id else _UNNAMED_ONCE_S,
            keys.channel(prefix),
            dream_id,
            int(update.status.is_terminal),
            int(bool(task_id)),
            name.removeprefix(f"{task_id}:"),
        ]
        try:
            append(keys_of_event, event)
        except (Disconnected, Unanswered):  # by a restart of the server, perhaps
            append(keys_of_event, event)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_client" in self.__dict__:
            self._client.close()

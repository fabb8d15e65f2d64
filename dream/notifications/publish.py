"""Publish events: append each to its dream's stream in Redis, and wake the gateways.

An event is a courtesy: a caller learns whether Redis took it, and a missing Redis is no error. Redis is imported for
the first event, so that web processes stay light.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.blocking import warn_on_loop
from dream.errors import InvalidArguments
from dream.log import get_logger
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import ImageRef
from dream.observe import tracing
from dream.observe.metrics import EVENTS_PUBLISHED
from dream.work.redis_client import RedisScript, connect

if TYPE_CHECKING:
    from redis import Redis

    from dream.settings import Settings

__all__ = [
    "Publisher",
    "events_key",
    "old_end_key",
    "old_once_key",
    "published_key",
    "send_image_update",
    "wake_channel",
]

_CONNECT_TIMEOUT_S = 1
_SOCKET_TIMEOUT_S = 2
#: Seconds for which a task's published events are remembered. Only a run that was stopped for longer repeats one.
_PUBLISHED_S = 3600
#: A repetition of an event without a name or task (a retry after a lost reply) is recognised for this time.
_UNNAMED_ONCE_S = 60

log = get_logger(__name__)


# --- names in Redis


def events_key(prefix: str, dream_id: int) -> str:
    """The stream of a dream's events."""
    return f"{prefix}:events:{dream_id}"


def published_key(prefix: str, owner: str) -> str:
    """The hash of the events that were published for a task, or of one event without a task."""
    return f"{prefix}:told:{owner}"


def old_once_key(prefix: str, dream_id: int, once: str) -> str:
    """The key by which an older release marks the event `once` as published."""
    return f"{prefix}:events:{dream_id}:once:{once}"


def old_end_key(prefix: str, dream_id: int, task_id: str) -> str:
    """The key by which an older release marks the task's last event as published."""
    return f"{prefix}:events:{dream_id}:end:{task_id}"


def wake_channel(prefix: str) -> str:
    """The channel that tells gateways of new events."""
    return f"{prefix}:events:wake"


# --- the publisher


class Publisher:
    """Publishes the events of one process. Safe to use from several threads.

    Parameters:
      settings: the URL of Redis, and the number and lifetime of the events that it keeps.
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

        After a task's last event no other event of the task is appended: a run that was stopped for a while may come
        with one.

        Parameters:
          update: the event.
          once: a name such as `<task id>:completed`; only the first event with this name is appended.

        Returns:
          Whether the event is in the stream, perhaps from an earlier call. False means that Redis did not take it.
        """
        from redis.exceptions import RedisError

        try:
            with tracing.publishing() as traceparent:
                self._run(update, once, traceparent)
        except RedisError as error:
            log.warning("event_not_published", dream_id=update.dream_id, status=str(update.status), error=str(error))
            EVENTS_PUBLISHED.add("lost")
            return False
        EVENTS_PUBLISHED.add("published")
        return True

    def _run(self, update: ImageUpdate, once: str | None, traceparent: str | None) -> None:
        from redis.exceptions import ConnectionError as Disconnected
        from redis.exceptions import TimeoutError as Unanswered

        settings, dream_id = self._settings, update.dream_id
        with self._lock:  # `cached_property` has no lock
            append = self._append
        prefix, task_id = settings.redis_prefix, update.task_id or ""
        name = once or uuid4().hex
        keys = [
            events_key(prefix, dream_id),
            published_key(prefix, task_id or name),
            old_once_key(prefix, dream_id, name),
            old_end_key(prefix, dream_id, task_id),
        ]
        event = [
            json.dumps(update.as_message(), separators=(",", ":"), ensure_ascii=False).encode(errors="replace"),
            settings.events_max_length,
            settings.events_ttl_s,
            min(settings.events_ttl_s, _PUBLISHED_S) if once or task_id else _UNNAMED_ONCE_S,
            wake_channel(prefix),
            dream_id,
            int(update.status.is_terminal),
            int(bool(task_id)),
            name.removeprefix(f"{task_id}:"),
            *([traceparent] if traceparent else []),
        ]
        try:
            append(keys, event)
        except (Disconnected, Unanswered):  # perhaps the server has restarted
            append(keys, event)

    def reopen(self, task_id: str) -> None:
        """Let events of a task pass again after its end, because it runs again. A missing Redis is no error."""
        from redis.exceptions import RedisError

        with suppress(RedisError):
            self._client.delete(published_key(self._settings.redis_prefix, task_id))

    def close(self) -> None:
        """Close the connections."""
        if "_client" in self.__dict__:
            self._client.close()


# --- the call for everybody


@lru_cache(maxsize=1)
def _default_publisher() -> Publisher:
    from dream.settings import load

    return Publisher(load())


def send_image_update(
    dream_id: int,
    image_urls: Sequence[str | Mapping[str, Any]] | None = None,
    status: str = "completed",
    message: str | None = None,
    progress: float | None = None,
) -> bool:
    """Send an event about a dream's images to its open pages (source: docs/contract.md, "Python").

    Parameters:
      dream_id: the dream.
      image_urls: URLs, or dicts `{"id", "url", "position"}` with at least `url`. An image without an id gets a negative
        one, which no stored image has; without a position it gets 0.
      status: one of `processing`, `completed`, `failed`, `delete_processing`, `delete_completed`, `delete_failed`.
      message: a sentence for a person.
      progress: 0–100.

    Returns:
      Whether Redis took the event.

    Raises:
      InvalidArguments: the status is unknown, `progress` is out of range, or an item is no image.
    """
    warn_on_loop("send_image_update")
    if isinstance(image_urls, str | bytes | Mapping):
        raise InvalidArguments("image_urls must be a list of URLs or of dicts with a url")
    update = ImageUpdate(
        dream_id=_number(dream_id, "dream_id"),
        status=_status(status),
        images=tuple(_image(item, index) for index, item in enumerate(image_urls or ())),
        message=message,
        progress=_progress(progress),
    )
    return _default_publisher().publish(update)


def _status(value: str) -> UpdateStatus:
    try:
        return UpdateStatus(value)
    except ValueError:
        allowed = ", ".join(UpdateStatus)
        raise InvalidArguments(f"status must be one of {allowed}, not {value!r}") from None


def _progress(value: float | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise InvalidArguments(f"progress must be a number from 0 to 100, not {value!r}")
    return int(value)


def _image(item: str | Mapping[str, Any], index: int) -> ImageRef:
    if isinstance(item, str):
        return {"id": -1 - index, "url": item, "position": 0}
    if not isinstance(item, Mapping) or not isinstance(item.get("url"), str):
        raise InvalidArguments(f"image {index} must be a URL or a dict with a url, not {item!r}")
    image_id, position = item.get("id"), item.get("position")
    return {
        "id": -1 - index if image_id is None else _number(image_id, "id"),
        "url": item["url"],
        "position": 0 if position is None else _number(position, "position"),
    }


def _number(value: object, name: str) -> int:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (OverflowError, TypeError, ValueError):
        raise InvalidArguments(f"{name} must be a number, not {value!r}") from None

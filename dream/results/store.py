"""Where results are kept: written, read, waited for and forgotten. Redis is imported with the first of these."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from dream import serialization
from dream.errors import ResultsUnavailable
from dream.redis_client import SOCKET_TIMEOUT_S, connect
from dream.redis_script import RedisScript
from dream.results.states import READY_STATES

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

    from dream.settings import Settings

__all__ = ["KEY_PREFIX", "Meta", "ResultStore", "Waiter", "meta_of"]

KEY_PREFIX = "celery-task-meta-"


class Meta(TypedDict):
    """What is kept of a task (source: `celery/backends/base.py`, `_get_result_meta`).

    `result` is what the task returned, or the error as `{"exc_type", "exc_message", "exc_module"}`, or whatever
    belongs to a state of the caller's own. `children` are `[[id, parent], None]`. `date_done` is ISO 8601 in UTC, None
    before the end.
    """

    status: str
    result: Any
    traceback: str | None
    children: Sequence[Any]
    date_done: str | None
    task_id: str


def meta_of(
    task_id: str,
    status: str,
    result: Any = None,
    *,
    traceback: str | None = None,
    children: Sequence[str] = (),
    done_at: datetime | None = None,
    **more: Any,
) -> Meta:
    """What is kept of a task.

    Parameters:
      children: the ids of the tasks that it has sent.
      done_at: when it ended; now where it has.
      more: what Celery's `result_extended` adds, or `parent_id` and `group_id`.
    """
    if done_at is None and status in READY_STATES:
        done_at = datetime.now(UTC)
    meta: Meta = {
        "status": status,
        "result": result,
        "traceback": traceback,
        "children": [[[child, None], None] for child in children],
        "date_done": done_at.isoformat() if done_at else None,
        "task_id": task_id,
    }
    meta.update(cast("Any", more))
    return meta


class ResultStore:
    """The results of one process; safe to share between threads.

    Parameters:
      settings: where Redis is (`DREAM_REDIS_URL`, else the broker), and how long results are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def client(self) -> Redis:
        """That Redis; it connects when it is first used."""
        return connect(self._settings.events_url)

    @cached_property
    def _store(self) -> RedisScript:
        return RedisScript(self.client, Path(__file__).with_name("store.lua"))

    def put(self, meta: Meta) -> bool:
        """Keep a task's state for `DREAM_RESULT_TTL_S`, and tell who waits for it.

        Returns:
          Whether it is kept; False where a SUCCESS is there, which stays.

        Raises:
          TypeError, ValueError: JSON cannot carry the result.
          ResultsUnavailable
        """
        text = serialization.dumps(meta)
        with _answers():
            return bool(self._store(keys=[_key(meta["task_id"])], args=[text, self._settings.result_ttl_s]))

    def get(self, task_id: str) -> Meta | None:
        """What is kept of a task.

        Raises:
          ValueError: it is not what Celery or we write.
          ResultsUnavailable
        """
        with _answers():
            text = cast("bytes | None", self.client.get(_key(task_id)))
        if text is None:
            return None
        found = serialization.loads(text)
        if not isinstance(found, dict) or "status" not in found:
            raise ValueError(f"what is kept at {_key(task_id)} is no result")
        return cast("Meta", {"result": None, "traceback": None, "children": [], "date_done": None, **found})

    def forget(self, task_id: str) -> None:
        """Keep nothing of it any longer.

        Raises:
          ResultsUnavailable
        """
        with _answers():
            self.client.delete(_key(task_id))

    @contextmanager
    def waiting(self, task_id: str) -> Iterator[Waiter]:
        """Listen to what is said of a task; what is said from here on is not missed.

        Raises:
          ResultsUnavailable
        """
        pubsub: PubSub = self.client.pubsub()  # type: ignore[no-untyped-call]
        try:
            with _answers():
                pubsub.subscribe(_key(task_id))
                waiter = Waiter(pubsub)
                waiter.begin()
            yield waiter
        finally:
            pubsub.close()

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "client" in self.__dict__:
            self.client.close()


class Waiter:
    """One subscription to what is said of a task."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def begin(self) -> None:
        """Wait until Redis has confirmed the subscription."""
        give_up = time.monotonic() + SOCKET_TIMEOUT_S
        while time.monotonic() < give_up:
            said = self._pubsub.get_message(timeout=SOCKET_TIMEOUT_S)
            if said is not None and said["type"] == "subscribe":
                return
        raise ResultsUnavailable

    def wait(self, timeout_s: float) -> bool:
        """Whether something was said within that time.

        Raises:
          ResultsUnavailable
        """
        with _answers():
            return self._pubsub.get_message(timeout=timeout_s) is not None


def _key(task_id: str) -> str:
    return KEY_PREFIX + task_id


@contextmanager
def _answers() -> Iterator[None]:
    """Turn whatever Redis says instead of an answer into one error.

    Raises:
      ResultsUnavailable
    """
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise ResultsUnavailable(f"the Redis that keeps results did not answer: {type(error).__name__}") from error

"""The results of tasks, kept in Redis in Celery's form: the real Celery reads them, and dream reads Celery's.

    key and channel   celery-task-meta-<task id>
    value, message    {"status", "result", "traceback", "children", "date_done", "task_id"}

For a task with a row, the row decides; its outcome is stored here, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from dream.errors import ResultsUnavailable
from dream.work import serialization
from dream.work.redis_client import SOCKET_TIMEOUT_S, RedisScript, connect

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

    from dream.work.settings import Settings

__all__ = [
    "EXCEPTION_STATES",
    "FAILURE",
    "KEY_PREFIX",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
    "Meta",
    "ResultStore",
    "Waiter",
    "meta_of",
]

KEY_PREFIX = "celery-task-meta-"

# --- the states of a task, as Celery names them

#: Unknown, or waiting.
PENDING = "PENDING"
#: A worker has it. Celery's events have this state, results do not.
RECEIVED = "RECEIVED"
STARTED = "STARTED"
#: Failed, and about to run again.
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"

#: The task has ended.
READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, RETRY})
#: The result is an error.
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
#: The result is an error that `get` raises.
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})


class Meta(TypedDict):
    """The record of a task (source: `celery/backends/base.py`, `_get_result_meta`).

    `result` is the task's return value, or its error as `{"exc_type", "exc_message", "exc_module"}`, or the value of
    one of the caller's own states. `children` are `[[id, parent], None]`. `date_done` is ISO 8601 in UTC, None before
    the end.
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
    """The record of a task.

    Parameters:
      children: the ids of the tasks that it has sent.
      done_at: when it ended; for an ended task the default is now.
      more: fields that Celery's `result_extended` adds, or `parent_id` and `group_id`.
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
      settings: the Redis of results (`DREAM_REDIS_URL`, else the broker), and their lifetime.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def client(self) -> Redis:
        """The client of that Redis; it connects when it is first used."""
        return connect(self._settings.events_url)

    @cached_property
    def _store(self) -> RedisScript:
        return RedisScript(self.client, Path(__file__).with_name("results.lua"))

    def put(self, meta: Meta) -> bool:
        """Store a task's record for `DREAM_RESULT_TTL_S`, and publish it to waiting callers.

        Returns:
          Whether it is stored; False if the task has a SUCCESS, which stays.

        Raises:
          TypeError, ValueError: JSON cannot carry the result.
          ResultsUnavailable
        """
        text = serialization.dumps(meta)
        with _answers():
            return bool(self._store(keys=[_key(meta["task_id"])], args=[text, self._settings.result_ttl_s]))

    def get(self, task_id: str) -> Meta | None:
        """The record of a task, or None.

        Raises:
          ValueError: neither Celery nor dream wrote it.
          ResultsUnavailable
        """
        with _answers():
            text = cast("bytes | None", self.client.get(_key(task_id)))
        if text is None:
            return None
        found = serialization.loads(text)
        if not isinstance(found, dict) or "status" not in found:
            raise ValueError(f"the value of {_key(task_id)} is no result")
        return cast("Meta", {"result": None, "traceback": None, "children": [], "date_done": None, **found})

    def forget(self, task_id: str) -> None:
        """Remove the record of a task.

        Raises:
          ResultsUnavailable
        """
        with _answers():
            self.client.delete(_key(task_id))

    @contextmanager
    def waiting(self, task_id: str) -> Iterator[Waiter]:
        """Subscribe to the records of a task; from now on no record is missed.

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
    """A subscription to the records of one task."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def begin(self) -> None:
        """Wait until Redis has confirmed the subscription."""
        give_up = time.monotonic() + SOCKET_TIMEOUT_S
        while time.monotonic() < give_up:
            message = self._pubsub.get_message(timeout=SOCKET_TIMEOUT_S)
            if message is not None and message["type"] == "subscribe":
                return
        raise ResultsUnavailable

    def wait(self, timeout_s: float) -> bool:
        """Whether a record was published within that time.

        Raises:
          ResultsUnavailable
        """
        with _answers():
            return self._pubsub.get_message(timeout=timeout_s) is not None


def _key(task_id: str) -> str:
    return KEY_PREFIX + task_id


@contextmanager
def _answers() -> Iterator[None]:
    """Turn every error of Redis into one.

    Raises:
      ResultsUnavailable
    """
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise ResultsUnavailable(f"the Redis that keeps results did not answer: {type(error).__name__}") from error

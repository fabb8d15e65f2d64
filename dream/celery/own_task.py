"""A task of dream's own as a Celery task: a call goes through the producer, which writes the task's row first.

The options of `apply_async`:

| option | here |
| --- | --- |
| `task_id` | the id; a second task of the same id is not accepted |
| `countdown`, `eta` | the earliest time of the run; an `eta` without time zone is in `DREAM_TIMEZONE` |
| `expires` | seconds or a datetime: a task that has not started by then is revoked |
| `queue`, `routing_key` | one of the two queues |
| `priority` | 0 to 9, 9 first, 5 by default; more counts as 9 (on Redis; RabbitMQ's queues are first in, first out) |
| `serializer` | `json` |
| in `options.WITHOUT_EFFECT`; `ignore_result`, `add_to_parent`, `argsrepr`, `kwargsrepr` | accepted, without effect |
| anything else | refused |
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from dream import producer as producers
from dream.blocking import warn_on_loop
from dream.compat.app.task import Task
from dream.compat.options import (
    MAX_SECONDS,
    WITHOUT_EFFECT,
    check_delay,
    due_of,
    given_options,
    moment_of,
    seconds_of,
    task_id_of,
)
from dream.compat.refused import OWN_OPTIONS
from dream.errors import InvalidArguments
from dream.messages.registry import QUEUES
from dream.producer import Connections, Delivery, Producer
from dream.work import connection

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.result import AsyncResult
    from dream.producer import Order

__all__ = ["OwnTask", "lend_producer", "parse", "producer_of"]

_KNOWN = WITHOUT_EFFECT | {
    *("add_to_parent", "argsrepr", "ignore_result", "kwargsrepr"),
    *("countdown", "eta", "expires", "priority", "queue", "routing_key", "serializer", "task_id"),
}
_producers: WeakKeyDictionary[Celery, Producer] = WeakKeyDictionary()
_lock = threading.Lock()


def producer_of(app: Celery) -> Producer:
    """The producer for the servers of an app: the process's, unless the app has servers of its own."""
    servers = app.servers
    if connection.is_default(servers):
        return producers.default()
    with _lock:
        found = _producers.get(app)
        if found is None or found.connections.messaging is not servers:
            connections = Connections(app.settings, messaging=servers)
            servers.on_close(connections.close)
            _producers[app] = found = Producer(app.settings, connections)
        return found


def lend_producer(app: Celery, producer: Producer) -> None:
    """Let an app accept tasks by this producer, and send and read results by its connection."""
    app.servers = producer.connections.messaging
    _producers[app] = producer


class OwnTask(Task):
    """One of dream's own tasks, which every worker knows.

    Parameters:
      app: the app that it belongs to.
      name: its full name in messages.
      function: the code of a direct call.
      order: makes the order that the producer accepts from `(producer, task_id, delivery, *arguments)`.
    """

    def __init__(self, app: Celery, name: str, function: Callable[..., Any], order: Callable[..., Order]) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.run = function  # type: ignore[method-assign]
        self._order = order

    def _send(self, args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any]) -> AsyncResult:
        return self.send_by(self.app, args, kwargs, {**options, "task_id": task_id})

    def send_by(self, app: Celery, args: Any, kwargs: Any, options: dict[str, Any]) -> AsyncResult:
        """Send the task by the producer of an app.

        Raises:
          TypeError, InvalidArguments: as of `apply_async`.
        """
        producer = producer_of(app)
        order = self.order(args, kwargs, producer=producer, **options)
        producer.accept(order)
        return app.AsyncResult(order.task_id)

    def order(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        producer: Producer | None = None,
        **options: Any,
    ) -> Order:
        """The order that a producer accepts; its bytes are staged. The module's docstring lists the options.

        Parameters:
          producer: the producer; by default that of the task's app.

        Raises:
          TypeError, InvalidArguments: as of `apply_async`; nothing was stored.
        """
        warn_on_loop(f"{self.name.rpartition('.')[2]}.delay")
        self._check_arguments(args, kwargs)
        used_id, delivery = parse(self.name, {**options, "task_id": task_id})
        arguments = self._signature_of_run.bind(*(args or ()), **(kwargs or {})).args
        return self._order(producer or producer_of(self.app), used_id, delivery, *arguments)


# --- options


def parse(task_name: str, options: Mapping[str, Any]) -> tuple[str, Delivery]:
    """The task's id and its delivery.

    Raises:
      InvalidArguments: an option is not supported, or has a value it may not have.
    """
    from dream.settings import load

    given = given_options(task_name, options, _KNOWN, OWN_OPTIONS)
    zone = ZoneInfo(load().timezone)
    return task_id_of(given.get("task_id")), Delivery(
        due_in_s=_due_in_s(given, zone),
        expires_in_s=_expires_in_s(given, zone),
        queue=_queue(given),
        priority=given.get("priority"),
    )


def _queue(given: Mapping[str, Any]) -> str | None:
    for name in ("queue", "routing_key"):
        if name in given and given[name] not in QUEUES:
            raise InvalidArguments(f"{name} must be one of {', '.join(QUEUES)}, not {given[name]!r}")
    queue: str | None = given.get("queue", given.get("routing_key"))
    return queue


def _due_in_s(given: Mapping[str, Any], zone: tzinfo) -> float:
    due = due_of(given, zone) or 0.0
    delay_s = due if isinstance(due, float) else _until(due)
    check_delay("eta", delay_s)
    return max(0.0, delay_s)


def _expires_in_s(given: Mapping[str, Any], zone: tzinfo) -> float | None:
    """Seconds from now; as in Celery, a worker revokes a task whose time has passed."""
    expires = given.get("expires")
    if not isinstance(expires, datetime):
        return None if expires is None else seconds_of("expires", expires)
    # Databases have no dates before the year 1 or after the year 9999.
    return max(-MAX_SECONDS, min(MAX_SECONDS, _until(moment_of("expires", expires, zone))))


def _until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()

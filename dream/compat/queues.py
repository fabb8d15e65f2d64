"""Queues as Celery's callers write them, in the place of kombu's classes; kombu's own may be used as well.

A queue here has a name and takes tasks that are sent to that name, or to its routing key. Exchanges do nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["Declared", "Exchange", "Queue", "name_of", "taking"]


@dataclass(frozen=True)
class Exchange:
    """Kept for its name; only direct ones can be."""

    name: str = ""
    type: str = "direct"


class Queue:
    """A queue.

    Parameters:
      name: what it is called.
      exchange: see above.
      routing_key: tasks that are sent with this key come here, too.
      **_options: kombu's others, which change nothing.
    """

    def __init__(self, name: str, exchange: Any = None, routing_key: str | None = None, **_options: Any) -> None:
        self.name = name
        self.exchange = exchange if exchange is not None else Exchange()
        self.routing_key = routing_key or name

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


class Declared:
    """Queues by name, as `app.amqp` has them; the rest of Celery's is not there.

    Parameters:
      queues: names, or objects that have one.
    """

    def __init__(self, queues: Iterable[Any]) -> None:
        found = ((name_of(queue), queue) for queue in queues)
        self.queues = {name: Queue(name) if isinstance(queue, str) else queue for name, queue in found}


def name_of(queue: Any) -> str:
    """The name of a queue, which may be written as its name.

    Raises:
      ImproperlyConfigured: it is none, or its exchange spreads tasks by patterns.
    """
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    if not isinstance(name, str) or not name:
        raise ImproperlyConfigured(f"task_queues: {queue!r} is neither a name nor a queue that has one")
    kind = getattr(getattr(queue, "exchange", None), "type", None) or "direct"
    if kind != "direct":
        raise ImproperlyConfigured(f"task_queues: {name!r} has a {kind} exchange: name its tasks in task_routes")
    return name


def taking(queues: Any, routing_key: str) -> str:
    """The name of the queue that takes tasks with that key: the one that has it, else the one of that name."""
    keyed = (queue for queue in queues or () if getattr(queue, "routing_key", None) == routing_key)
    return next((name_of(queue) for queue in keyed), routing_key)

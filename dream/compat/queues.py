"""Queues as Celery's callers write them, and the routes of tasks to them.

A queue has a name. It takes tasks that are sent to that name, or to its routing key. Exchanges do nothing else. `Queue`
and `Exchange` stand in for kombu's classes; kombu's own may be used as well.

A route of `task_routes` is a mapping from names to destinations, a function, or the dotted name of either. There may be
several: the first that knows the task decides. A name in a mapping is exact, a pattern with `*` or `?`, or a compiled
regular expression; exact names come first. A destination is a queue's name or a mapping of options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dream.compat.conf import resolve
from dream.compat.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from dream.compat.app.base import Celery

__all__ = [
    "Declared",
    "Exchange",
    "Queue",
    "name_of",
    "named_queues",
    "queue_names",
    "queues_of",
    "routed",
    "taking",
]


@dataclass(frozen=True)
class Exchange:
    """An exchange: only its name is kept, and only direct ones are accepted."""

    name: str = ""
    type: str = "direct"


class Queue:
    """A queue.

    Parameters:
      name: its name.
      exchange: see `Exchange`.
      routing_key: the queue also takes tasks that are sent with this key.
      **_options: kombu's other options; without effect.
    """

    def __init__(self, name: str, exchange: Any = None, routing_key: str | None = None, **_options: Any) -> None:
        self.name = name
        self.exchange = exchange if exchange is not None else Exchange()
        self.routing_key = routing_key or name

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


class Declared:
    """Queues by name: `app.amqp`. The rest of Celery's is missing.

    Parameters:
      queues: names, or objects with a name.
    """

    def __init__(self, queues: Iterable[Any]) -> None:
        found = ((name_of(queue), queue) for queue in queues)
        self.queues = {name: Queue(name) if isinstance(queue, str) else queue for name, queue in found}


def name_of(queue: Any) -> str:
    """The name of a queue, which may be given by its name.

    Raises:
      ImproperlyConfigured: it is no queue, or its exchange is not direct.
    """
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    if not isinstance(name, str) or not name:
        raise ImproperlyConfigured(f"task_queues: {queue!r} is neither a name nor a queue that has one")
    kind = getattr(getattr(queue, "exchange", None), "type", None) or "direct"
    if kind != "direct":
        raise ImproperlyConfigured(f"task_queues: {name!r} has a {kind} exchange: name its tasks in task_routes")
    return name


def taking(queues: Any, routing_key: str) -> str:
    """The name of the queue with that routing key; without one, the key is the name."""
    keyed = (queue for queue in queues or () if getattr(queue, "routing_key", None) == routing_key)
    return next((name_of(queue) for queue in keyed), routing_key)


# --- routes


def routed(
    routes: Any,
    name: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    task: Any = None,
) -> dict[str, Any]:
    """The options of a task's message: the caller's own, then those of its route.

    Parameters:
      routes: the setting `task_routes`.
      name, args, kwargs, options, task: of the message; a route that is a function gets all of them.

    Raises:
      ImproperlyConfigured: a route is neither a mapping nor a function.
    """
    own = {option: value for option, value in (options or {}).items() if value is not None}
    for route in _routes(routes):
        found = _destination(route, name, args or (), kwargs or {}, own, task)
        if found:
            destination = {"queue": found} if isinstance(found, str) else dict(found)
            if own.keys() & {"queue", "routing_key"}:
                destination = {key: value for key, value in destination.items() if key not in ("queue", "routing_key")}
            return {**destination, **own}
    return own


def _routes(routes: Any) -> Iterable[Any]:
    """The routes one by one; a list of pairs is one mapping."""
    if routes is None:
        return ()
    if isinstance(routes, str | Mapping) or callable(routes):
        return (routes,)
    if all(_is_pair(each) for each in routes):
        return (dict(routes),)
    return tuple(dict(each) if isinstance(each, list | tuple) else each for each in routes)


def _is_pair(route: Any) -> bool:
    return isinstance(route, list | tuple) and len(route) == 2 and isinstance(route[0], str | re.Pattern)


def _destination(route: Any, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Any:
    if isinstance(route, str):
        route = resolve(route)
    if isinstance(route, Mapping):
        return route[name] if name in route else next((route[key] for key in route if _matches(key, name)), None)
    route = getattr(route, "route_for_task", route)
    if not callable(route):
        raise ImproperlyConfigured(f"task_routes: {route!r} is neither a mapping nor a function")
    return route(name, args, kwargs, dict(options), task=task)


def _matches(key: Any, name: str) -> bool:
    return bool(key.match(name)) if isinstance(key, re.Pattern) else fnmatchcase(name, key)


def queue_names(queues: Any) -> tuple[str, ...]:
    """The names in the setting `task_queues`, which is a mapping, or a list of names or of objects with a name."""
    return tuple(name_of(each) for each in queues or ())


def named_queues(routes: Any) -> set[str]:
    """The queues that the mappings among the routes name; those of functions are not known."""
    found: set[str] = set()
    for route in _routes(routes):
        route = resolve(route) if isinstance(route, str) else route
        for destination in route.values() if isinstance(route, Mapping) else ():
            queue = destination if isinstance(destination, str) else destination.get("queue")
            if queue is not None:
                found.add(name_of(queue))
    return found


def queues_of(app: Celery) -> set[str]:
    """The queues of an app's tasks, without prefix, as far as its settings and definitions name them.

    Raises:
      ImproperlyConfigured, InvalidArguments: a queue or a route is wrong.
    """
    conf, tasks = app.conf, dict(app.tasks).values()
    named = {app.default_queue, *queue_names(conf.task_queues), *named_queues(conf.task_routes)}
    return {app.queue_named(queue) for queue in (*named, *(task.queue for task in tasks if task.queue))}

"""Where tasks go: by `task_routes`, and which queues an app has in all.

A route is a mapping from names to destinations, a function, or the dotted name of either; there may be several, and
the first that knows the task decides. In a mapping a name is exact, a pattern with `*` or `?`, or a compiled regular
expression; exact names come first. A destination is a queue's name or a mapping of options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dream.compat.conf.sources import resolve
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.queues import name_of

if TYPE_CHECKING:
    from dream.compat.app import Celery

__all__ = ["named_queues", "queue_names", "queues_of", "routed"]


def routed(
    routes: Any,
    name: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    task: Any = None,
) -> dict[str, Any]:
    """The options with which a task is sent: the caller's own, and those of its route where the caller names none.

    Parameters:
      routes: the setting `task_routes`.
      name, args, kwargs, options, task: what is sent; a route that is a function gets all of them.

    Raises:
      ImproperlyConfigured: a route is none.
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
    """Each route; a list of pairs is one mapping."""
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
    """The names of the setting `task_queues`: of a mapping, or of a list of names or of objects that have one."""
    return tuple(name_of(each) for each in queues or ())


def named_queues(routes: Any) -> set[str]:
    """The queues that the mappings among the routes name; what a function will say is not known."""
    found: set[str] = set()
    for route in _routes(routes):
        route = resolve(route) if isinstance(route, str) else route
        for destination in route.values() if isinstance(route, Mapping) else ():
            queue = destination if isinstance(destination, str) else destination.get("queue")
            if queue is not None:
                found.add(name_of(queue))
    return found


def queues_of(app: Celery) -> set[str]:
    """The queues into which an app's tasks are put, without prefix, as far as its settings and definitions name them.

    Raises:
      ImproperlyConfigured, InvalidArguments: one cannot be.
    """
    conf, tasks = app.conf, dict(app.tasks).values()
    named = {app.default_queue, *queue_names(conf.task_queues), *named_queues(conf.task_routes)}
    return {app.queue_named(queue) for queue in (*named, *(task.queue for task in tasks if task.queue))}

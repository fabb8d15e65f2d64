"""What may be said about a caller's own task when it is sent: the options of `apply_async`.

| option | here |
| --- | --- |
| `task_id` | the id; a new one by default |
| `countdown`, `eta` | not before; an `eta` without time zone is in the app's |
| `expires` | seconds or a datetime: a task that has not started by then is revoked |
| `queue`, `routing_key` | the queue; else the task's own, its route's, `task_default_queue` |
| `priority` | 0–255, kept; queues are first in, first out |
| `ignore_result`, `time_limit`, `soft_time_limit`, `link`, `link_error`, `headers`, `shadow` | as in Celery |
| `argsrepr`, `kwargsrepr` | what logs show in place of the arguments |
| `app_id`, `cluster_id`, `user_id`, `type`, `reply_to`, `correlation_id` | kept; `self.request.properties` has them |
| `root_id`, `parent_id`, `group_id` | kept |
| `add_to_parent` | False: it is no child of the run that sends it |
| in `options.WITHOUT_EFFECT` | accepted: it is so anyway, or says nothing here |
| `serializer` | `json` |
| an attribute of the task's own base class | left to that class |
| anything else | refused by name |

An option whose value is None counts as not given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from dream import serialization
from dream.compat import current
from dream.compat.app.context import origin
from dream.compat.envelope import Envelope
from dream.compat.exceptions import EncodeError
from dream.compat.options import WITHOUT_EFFECT, check_priority, moment_of, seconds_of, task_id_of
from dream.compat.queues import taking
from dream.compat.routes import routed
from dream.compat.work_flows import INSTEAD
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task

__all__ = ["changed", "envelope_of", "jsonable", "limits_of"]

_AS_THEY_ARE = (
    *("headers", "reply_to", "correlation_id", "root_id", "parent_id", "shadow", "priority"),
    *("argsrepr", "kwargsrepr"),
)
_PROPERTIES = frozenset({"app_id", "cluster_id", "type", "user_id"})
_OF_A_TASK = ("queue", "routing_key", "priority", "expires")
_KNOWN = frozenset(
    {
        *_AS_THEY_ARE,
        *_PROPERTIES,
        *WITHOUT_EFFECT,
        *("task_id", "countdown", "eta", "expires", "queue", "routing_key", "ignore_result", "group_id"),
        *("time_limit", "soft_time_limit", "link", "link_error", "add_to_parent", "serializer"),
    }
)
_WHY_REFUSED = {
    "chain": INSTEAD["chain"],
    "chord": INSTEAD["chord"],
    "connection": "set DREAM_BROKER_URL",
    "expiration": "set expires",
    "producer": "set DREAM_BROKER_URL",
    "stamped_headers": INSTEAD["stamp"],
}


def envelope_of(
    app: Celery,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    task: Task | None = None,
) -> Envelope:
    """The task with all that the caller, its definition, its route and the run that sends it say."""
    given = {option: value for option, value in options.items() if value is not None}
    if task is not None:
        given = {option: value for option, value in given.items() if not _is_of_its_class(task, option)}
        own = {option: value for option in _OF_A_TASK if (value := getattr(task, option)) is not None}
        given = {**own, **given}
    if app.conf.task_routes:
        given = routed(app.conf.task_routes, name, args, kwargs, given, task)
    ignore_result = given.pop("ignore_result", None)
    if ignore_result is None:
        ignore_result = app.ignores_result(task)
    task_id = task_id_of(given.pop("task_id", None))
    envelope = Envelope(
        task=name,
        id=task_id,
        args=jsonable(name, args or ()),
        kwargs=jsonable(name, kwargs or {}),
        queue=app.default_queue,
        ignore_result=bool(ignore_result),
        priority=app.conf.task_default_priority,
        origin=origin(),
        **_inherited(),
    )
    envelope = changed(envelope, given, app) if given else envelope
    _check_limits(envelope, task)
    return envelope


def changed(envelope: Envelope, options: Mapping[str, Any], app: Celery) -> Envelope:
    """The envelope with options of a call in place of its own.

    Raises:
      InvalidArguments: an option is refused, or has a value that it may not have.
      EncodeError: JSON cannot carry an argument.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check(envelope.task, given)
    new: dict[str, Any] = {name: given[name] for name in _AS_THEY_ARE if name in given}
    if "group_id" in given:
        new["group"] = given["group_id"]
    if "ignore_result" in given:
        new["ignore_result"] = bool(given["ignore_result"])
    if given.keys() & {"queue", "routing_key"}:
        queue = given["queue"] if "queue" in given else taking(app.conf.task_queues, given["routing_key"])
        new["queue"] = app.queue_named(queue)
    if given.keys() & {"time_limit", "soft_time_limit"}:
        hard, soft = envelope.timelimit
        new["timelimit"] = (given.get("time_limit", hard), given.get("soft_time_limit", soft))
    for name in ("link", "link_error"):
        if name in given:
            new[name] = [*getattr(envelope, name), *_signatures(given[name])]
    if properties := {name: given[name] for name in _PROPERTIES if name in given}:
        new["properties"] = {**envelope.properties, **properties}
    new["eta"] = _eta(given, app)
    if "expires" in given:
        new["expires"] = _moment("expires", given["expires"], app)
    for name in new.keys() & {"link", "link_error", "headers"}:
        new[name] = jsonable(envelope.task, new[name])
    return replace(envelope, **new)


# --- steps


def _is_of_its_class(task: Task, option: str) -> bool:
    """Whether an option belongs to the task's own base class, which has an attribute of that name."""
    from dream.compat.app.task import Task

    return option not in _KNOWN and hasattr(type(task), option) and not hasattr(Task, option)


def _check(task_name: str, given: Mapping[str, Any]) -> None:
    for name in given.keys() - _KNOWN:
        why = f": {_WHY_REFUSED[name]}" if name in _WHY_REFUSED else ""
        raise InvalidArguments(f"{task_name}: the option {name!r} is not supported{why}")
    check_priority(given.get("priority", 0))
    if given.get("serializer", "json") not in ("json", "application/json"):
        raise InvalidArguments(f"{task_name}: serializer must be 'json', not {given['serializer']!r}")
    headers = given.get("headers", {})
    if not isinstance(headers, Mapping):
        raise InvalidArguments(f"{task_name}: headers must be a dict, not {headers!r}")


def _check_limits(envelope: Envelope, task: Task | None) -> None:
    hard, soft = limits_of(envelope, task)
    if hard is not None and soft is not None and soft > hard:
        raise InvalidArguments(
            f"{envelope.task}: soft_time_limit must be less than or equal to time_limit: {soft!r} > {hard!r}"
        )


def limits_of(envelope: Envelope, task: Task | None) -> tuple[float | None, float | None]:
    """Seconds, hard and soft, of a run: the call's, else the definition's, else the app's."""
    hard, soft = envelope.timelimit
    if task is None:
        return hard, soft
    conf = task.app.conf
    hard = next((each for each in (hard, task.time_limit, conf.task_time_limit) if each is not None), None)
    soft = next((each for each in (soft, task.soft_time_limit, conf.task_soft_time_limit) if each is not None), None)
    return hard, soft


def _eta(given: Mapping[str, Any], app: Celery) -> str | None:
    """`countdown` goes before `eta`, as in Celery."""
    if "countdown" in given:
        return _moment("countdown", seconds_of("countdown", given["countdown"]), app)
    return _moment("eta", given["eta"], app) if "eta" in given else None


def _moment(name: str, value: Any, app: Celery) -> str:
    return moment_of(name, value, app.timezone).astimezone(UTC).isoformat()


def _inherited() -> dict[str, Any]:
    """A task that a run sends is that run's child."""
    running = current.current_request()
    if running is None or running.id is None:
        return {}
    return {"root_id": running.root_id or running.id, "parent_id": running.id}


def jsonable(name: str, value: Any) -> Any:
    """The value in JSON's own types.

    Raises:
      EncodeError
    """
    if not value:
        return value
    try:
        return json.loads(serialization.dumps(value))
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{name}: {error}") from error


def _signatures(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]

"""Sends a caller's own task: the options of `apply_async`, the envelope that they make, and its message on the queue.

| option | here |
| --- | --- |
| `task_id` | the id; a new one by default |
| `countdown`, `eta` | the earliest time of the run; an `eta` without time zone is in the app's |
| `expires` | seconds or a datetime: a task that has not started by then is revoked |
| `queue`, `routing_key` | the queue; by default the task's own, its route's, or `task_default_queue` |
| `priority` | on Redis 9 is first, 0 last, 5 the default, more counts as 9; RabbitMQ's queues are first in, first out |
| `ignore_result`, `time_limit`, `soft_time_limit`, `link`, `link_error`, `headers`, `shadow` | as in Celery |
| `argsrepr`, `kwargsrepr` | the text that logs show in place of the arguments |
| `app_id`, `cluster_id`, `user_id`, `type`, `reply_to`, `correlation_id` | kept; `self.request.properties` has them |
| `root_id`, `parent_id`, `group_id` | kept |
| `add_to_parent` | False: it is not among the children of the run that sends it |
| in `options.WITHOUT_EFFECT` | accepted, without effect |
| `serializer` | `json` |
| an attribute of the task's own base class | left to that class |
| any other | refused by name |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dream.compat import current, signals
from dream.compat.app.context import origin
from dream.compat.envelope import Envelope
from dream.compat.exceptions import EncodeError, OperationalError
from dream.compat.options import WITHOUT_EFFECT, due_of, given_options, moment_of, task_id_of
from dream.compat.queues import routed, taking
from dream.compat.refused import OPTIONS
from dream.errors import BrokerUnavailable, InvalidArguments
from dream.work import serialization
from dream.work.messages import turn

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task
    from dream.compat.result import AsyncResult

__all__ = [
    "changed",
    "envelope_of",
    "jsonable",
    "limits_of",
    "publish",
    "put",
]


def publish(
    app: Celery,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    task: Task | None = None,
) -> AsyncResult:
    """Put a task on its queue.

    Parameters:
      app: the app with the configuration.
      name: full name.
      options: see the table above.
      task: its definition, if this process knows it.

    Raises:
      InvalidArguments, EncodeError, OperationalError
    """
    envelope = envelope_of(app, name, args, kwargs, options, task)
    put(app, envelope)
    running = current.current_request()
    if running is not None and options.get("add_to_parent") is not False:
        running.children.append(envelope.id)
    return app.AsyncResult(envelope.id, ignored=envelope.ignore_result, has_row=False)


def put(app: Celery, envelope: Envelope, own_turn: Mapping[str, Any] | None = None) -> None:
    """Put a task's message on its queue, and send the signals before and after it.

    Parameters:
      own_turn: the option `turn` that the message keeps; None: made from the envelope's priority.

    Raises:
      EncodeError: JSON cannot carry it.
      OperationalError: the broker is away.
    """
    envelope = _announced(envelope)
    options = turn(priority=envelope.priority) if own_turn is None else own_turn
    message = envelope.to_message(app.settings.queue_prefix).copy(options=options)
    delay_s = envelope.delay_s
    from dream.work.broker import send

    try:
        send(app.servers.broker, message, delay_s)
    except BrokerUnavailable as error:
        raise OperationalError(f"{envelope.task}: {error}") from error
    except TypeError as error:
        raise EncodeError(f"{envelope.task}: a message cannot carry it: {error}") from error
    if signals.after_task_publish.receivers:
        signals.after_task_publish.send(
            envelope.task, body=_body(envelope), exchange="", routing_key=envelope.queue, headers=_headers(envelope)
        )


# --- signals


def _announced(envelope: Envelope) -> Envelope:
    """Send `before_task_publish`; the task gets the headers that a receiver adds."""
    if not signals.before_task_publish.receivers:
        return envelope
    headers = _headers(envelope)
    before = set(headers)
    properties = {"correlation_id": envelope.correlation_id or envelope.id, "priority": envelope.priority}
    signals.before_task_publish.send(
        envelope.task,
        body=_body(envelope),
        exchange="",
        routing_key=envelope.queue,
        headers=headers,
        properties=properties,
        declare=[],
        retry_policy={},
    )
    added = {name: value for name, value in headers.items() if name not in before}
    if not added:
        return envelope
    return replace(envelope, headers=jsonable(envelope.task, {**envelope.headers, **added}))


def _headers(envelope: Envelope) -> dict[str, Any]:
    """The headers of the message in Celery's protocol 2."""
    return {
        **envelope.headers,
        "lang": "py",
        "task": envelope.task,
        "id": envelope.id,
        "shadow": envelope.shadow,
        "eta": envelope.eta,
        "expires": envelope.expires,
        "group": envelope.group,
        "retries": envelope.retries,
        "timelimit": list(envelope.timelimit),
        "root_id": envelope.root_id or envelope.id,
        "parent_id": envelope.parent_id,
        "argsrepr": envelope.argsrepr or repr(tuple(envelope.args)),
        "kwargsrepr": envelope.kwargsrepr or repr(dict(envelope.kwargs)),
        "origin": envelope.origin,
        "ignore_result": envelope.ignore_result,
    }


def _body(envelope: Envelope) -> Any:
    embedded = {"callbacks": envelope.link or None, "errbacks": envelope.link_error or None}
    return envelope.args, envelope.kwargs, {**embedded, "chain": None, "chord": None}


# --- options


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


def envelope_of(
    app: Celery,
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    task: Task | None = None,
) -> Envelope:
    """The envelope of a call: its options, then those of the task's route and definition, and the run that sends it."""
    given = {option: value for option, value in options.items() if value is not None}
    if task is not None:
        given = {
            option: value for option, value in given.items() if option in _KNOWN or not task.has_own_option(option)
        }
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
    """The envelope, with the options of a call in place of its own.

    Raises:
      InvalidArguments: an option is refused, or has a wrong value.
      EncodeError: JSON cannot carry an argument.
    """
    given = given_options(envelope.task, options, _KNOWN, OPTIONS)
    _check_headers(envelope.task, given.get("headers", {}))
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
        new["expires"] = moment_of("expires", given["expires"], app.timezone).astimezone(UTC).isoformat()
    for name in new.keys() & {"link", "link_error", "headers"}:
        new[name] = jsonable(envelope.task, new[name])
    return replace(envelope, **new)


# --- steps


def _check_headers(task_name: str, headers: Any) -> None:
    if not isinstance(headers, Mapping):
        raise InvalidArguments(f"{task_name}: headers must be a dict, not {headers!r}")


def _check_limits(envelope: Envelope, task: Task | None) -> None:
    hard, soft = limits_of(envelope, task)
    if hard is not None and soft is not None and soft > hard:
        raise InvalidArguments(
            f"{envelope.task}: soft_time_limit must be less than or equal to time_limit: {soft!r} > {hard!r}"
        )


def limits_of(envelope: Envelope, task: Task | None) -> tuple[float | None, float | None]:
    """The hard and the soft time limit of a run in seconds: the call's, else the definition's, else the app's."""
    hard, soft = envelope.timelimit
    if task is None:
        return hard, soft
    conf = task.app.conf
    hard = next((each for each in (hard, task.time_limit, conf.task_time_limit) if each is not None), None)
    soft = next((each for each in (soft, task.soft_time_limit, conf.task_soft_time_limit) if each is not None), None)
    return hard, soft


def _eta(given: Mapping[str, Any], app: Celery) -> str | None:
    due = due_of(given, app.timezone)
    if isinstance(due, float):
        due = datetime.now(UTC) + timedelta(seconds=due)
    return None if due is None else due.astimezone(UTC).isoformat()


def _inherited() -> dict[str, Any]:
    """The ids of the run that sends the task, as its parent."""
    running = current.current_request()
    if running is None or running.id is None:
        return {}
    return {"root_id": running.root_id or running.id, "parent_id": running.id}


def jsonable(name: str, value: Any) -> Any:
    """The value in JSON's types.

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

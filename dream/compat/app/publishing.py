"""How a caller's own task gets onto its queue. What may be said about it is in `envelopes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dream.compat import current, signals
from dream.compat.app.envelopes import envelope_of, jsonable
from dream.compat.exceptions import EncodeError, OperationalError
from dream.errors import BrokerUnavailable

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.compat.app.task import Task
    from dream.compat.envelope import Envelope
    from dream.compat.result import AsyncResult

__all__ = ["publish", "put"]


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
      app: whose configuration counts.
      name: full name.
      args, kwargs, options: see `envelopes`.
      task: its definition, where it is known here.

    Raises:
      InvalidArguments, EncodeError, OperationalError
    """
    envelope = envelope_of(app, name, args, kwargs, options, task)
    put(app, envelope)
    running = current.current_request()
    if running is not None and options.get("add_to_parent") is not False:
        running.children.append(envelope.id)
    return app.AsyncResult(envelope.id, ignored=envelope.ignore_result, has_row=False)


def put(app: Celery, envelope: Envelope) -> None:
    """Put a task on its queue, signals around it.

    Raises:
      EncodeError: JSON cannot carry it.
      OperationalError: the broker is away.
    """
    envelope = _announced(envelope)
    message = envelope.to_message(app.settings.queue_prefix)
    delay_s = envelope.delay_s
    from dream.broker import send

    try:
        send(app.producer.broker, message, delay_s)
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
    """Tell who listens; headers that a listener adds are the task's."""
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
    """What protocol 2 has as a message's headers."""
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

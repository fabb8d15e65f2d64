"""The message of a caller's own task: a plain Dramatiq message, with Celery's properties beside it.

    message_id   the task's id                 actor_name   the task's full name
    args, kwargs as given (`serialization`)    queue_name   the queue, with `DREAM_QUEUE_PREFIX`
    options      {"delivery_id": "<id>:<retries>", "celery": {…}}

`celery` has only properties that are not at their default, by the names of Celery's protocol 2. Every message of the
façade and the bridge has it, perhaps empty. A message without it was written by Dramatiq's own `actor.send`. The façade
and the bridge both write messages with this type (`tests/unit/compat/test_envelope.py` has the JSON).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dream.work.messages import CELERY, DEFAULT_QUEUE, DELIVERY_ID, SERIES, delivery_id

if TYPE_CHECKING:
    from dramatiq import Message

__all__ = ["PERIODIC", "Envelope"]

#: The header of a periodic task's run: the name of its entry.
PERIODIC = "periodic_task_name"


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A task on its way to a worker.

    Parameters:
      task: full name.
      id: the task's id, the same in every retry.
      args, kwargs: in JSON's types.
      queue: without prefix.
      eta: the earliest time of the run (ISO 8601 with an offset).
      expires: the latest time of its start; after it the task is revoked (ISO 8601 with an offset).
      retries: the number of runs before this one.
      root_id: the first task of a chain of links and sub-tasks; None means itself.
      parent_id: the task that sent this one.
      group: the id of the group that an unmodified Celery producer sent it in.
      ignore_result: its outcome is not stored.
      timelimit: seconds, hard and soft; None means the limit of the task's definition.
      link, link_error: signatures (`{"task", "args", "kwargs", "options", "immutable", …}`) sent when it has ended.
      headers: a caller's own.
      shadow: its name in logs.
      origin: `<pid>@<host>` of the sender.
      priority: as given; `dream.compat.app.publishing` gives it to the broker.
      delivery_info: `exchange` and `routing_key` of the sender's message.
      correlation_id, reply_to: of the sender's message.
      argsrepr, kwargsrepr: the text that logs show in place of the arguments.
      properties: the sender's other properties of AMQP, such as `app_id`.
      branch: `.<retries>-<number>` from the second `retry` call of one run on, so that each is a delivery of its own.
    """

    task: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str = DEFAULT_QUEUE
    eta: str | None = None
    expires: str | None = None
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    ignore_result: bool = False
    timelimit: tuple[float | None, float | None] = (None, None)
    link: Sequence[Mapping[str, Any]] = ()
    link_error: Sequence[Mapping[str, Any]] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)
    shadow: str | None = None
    origin: str | None = None
    priority: int | None = None
    delivery_info: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    branch: str = ""

    @property
    def delivery_id(self) -> str:
        """The name of the delivery: the broker keeps one message of each."""
        return delivery_id(self.id, self.retries) + self.branch

    @property
    def delay_s(self) -> float:
        """Seconds until it is due; 0 if it is due."""
        if self.eta is None:
            return 0.0
        return max(0.0, (datetime.fromisoformat(self.eta) - datetime.now(UTC)).total_seconds())

    @property
    def has_expired(self) -> bool:
        """Whether the latest time of its start has passed."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= datetime.now(UTC)

    def to_message(self, queue_prefix: str = "") -> Message[Any]:
        """The message; put it on its queue with a delay of `delay_s`."""
        from dramatiq import Message

        values = self.__dict__
        celery = {name: value for name in _PROPERTIES if (value := values[name])}
        if not any(self.timelimit):
            celery.pop("timelimit", None)
        if self.priority == 0:
            celery["priority"] = 0
        entry = self.headers.get(PERIODIC) if not self.retries else None
        return Message(
            queue_name=queue_prefix + self.queue,
            actor_name=self.task,
            args=tuple(self.args),
            kwargs=dict(self.kwargs),
            options={DELIVERY_ID: self.delivery_id, CELERY: celery, **({SERIES: entry} if entry else {})},
            message_id=self.id,
        )

    @classmethod
    def from_message(cls, message: Any, queue_prefix: str = "") -> Envelope:
        """The envelope of a message, without properties that this release does not know."""
        celery = {name: value for name, value in message.options.get(CELERY, {}).items() if name in _PROPERTIES}
        if "timelimit" in celery:
            celery["timelimit"] = tuple(celery["timelimit"])
        return cls(
            task=message.actor_name,
            id=message.message_id,
            args=message.args,
            kwargs=message.kwargs,
            queue=message.queue_name.removesuffix(".DQ").removeprefix(queue_prefix),
            **celery,
        )


_OF_THE_MESSAGE = ("task", "id", "args", "kwargs", "queue")
#: Properties at their default are falsy, except `timelimit`. A priority of 0 is no default.
_PROPERTIES = tuple(each.name for each in fields(Envelope) if each.name not in _OF_THE_MESSAGE)

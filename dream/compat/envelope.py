"""What a message carries of a task that a caller defined: a plain Dramatiq message, and Celery's properties beside it.

    message_id   the task's id                 actor_name   the task's full name
    args, kwargs as given (`serialization`)    queue_name   the queue, with `DREAM_QUEUE_PREFIX`
    options      {"delivery_id": "<id>:<retries>", "celery": {…}}

`celery` holds only properties that are not at their default, by the names of Celery's protocol 2. It is there, perhaps
empty, in every message that the façade or the bridge writes; a message without it is one that Dramatiq's own
`actor.send` wrote. Whoever puts a task on a queue writes it with this type (`tests/unit/compat/test_envelope.py` holds
the JSON).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dream.messages import CELERY, DEFAULT_QUEUE, DELIVERY_ID, SERIES, delivery_id

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
      queue: where it goes, without prefix.
      eta: not before (ISO 8601 with an offset).
      expires: it is revoked where it has not started by then (ISO 8601 with an offset).
      retries: how many runs came before this one.
      root_id: the task at the head of a chain of links and sub-tasks; None means itself.
      parent_id: the task that sent this one.
      group: the id of the group that an unmodified Celery producer sent it in.
      ignore_result: nothing is stored of its end.
      timelimit: seconds, hard and soft; None means that of the task's definition.
      link, link_error: signatures (`{"task", "args", "kwargs", "options", "immutable", …}`) sent when it has ended.
      headers: a caller's own.
      shadow: a name to log it under.
      origin: `<pid>@<host>` of the sender.
      priority: as given; queues are first in, first out.
      delivery_info: what the sender's message was sent with: `exchange`, `routing_key`.
      correlation_id, reply_to: of the sender's message.
      argsrepr, kwargsrepr: what logs show in place of the arguments.
      properties: others of AMQP's that the sender named, as `app_id`.
      branch: `.<retries>-<number>` from the second `retry` call of one run on: each is a delivery of its own.
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
        """Two messages of one delivery are one: the broker holds each at most once."""
        return delivery_id(self.id, self.retries) + self.branch

    @property
    def delay_s(self) -> float:
        """Seconds until it is due; 0 where it is."""
        if self.eta is None:
            return 0.0
        return max(0.0, (datetime.fromisoformat(self.eta) - datetime.now(UTC)).total_seconds())

    @property
    def has_expired(self) -> bool:
        """Whether the time has passed after which its sender did not want it any more."""
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
        """What a message carries; properties that this release does not know are left out."""
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
#: What is at its default is false, but `timelimit`; and a priority of 0 is one.
_PROPERTIES = tuple(each.name for each in fields(Envelope) if each.name not in _OF_THE_MESSAGE)

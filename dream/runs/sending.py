"""Messages of dream's own tasks, and the broker that carries them.

A message of dream's own is a hint to look at a task's row. It carries the row's id and arguments, and names
its delivery `<task>:<attempt>`, so that the broker can tell whether it has it already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dramatiq import Message

from dream.messages.registry import PROCESS_IMAGES, QUEUES, kind_of, queue_of
from dream.observe import tracing
from dream.work.broker import make_broker, unavailable_as_error
from dream.work.messages import DELIVERY_ID, delivery_id, turn

if TYPE_CHECKING:
    from dream.settings import Settings
    from dream.work.broker import AnyBroker

__all__ = ["Sendable", "Waiting", "group_of_dream", "message_of", "missing", "own_broker", "queue_name", "send_missing"]


def own_broker(settings: Settings) -> AnyBroker:
    """Make the broker of a process, with dream's two queues. It connects when it is first used."""
    return make_broker(settings, QUEUES)


class Waiting(Protocol):
    """A task that dream may have to send again."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def queue(self) -> str | None: ...


class Sendable(Waiting, Protocol):
    """A `Waiting` task with its arguments."""

    @property
    def args(self) -> Sequence[Any]: ...


W = TypeVar("W", bound=Waiting)


def group_of_dream(dream_id: int, user_id: int | None) -> str:
    """The group that takes turns with other groups: the dream's owner if known, else the dream."""
    return f"dream:{dream_id}" if user_id is None else f"user:{user_id}"


def message_of(
    settings: Settings,
    task_id: str,
    name: str,
    args: Sequence[Any],
    *,
    attempt: int = 0,
    queue: str | None = None,
    priority: int | None = None,
    user_id: int | None = None,
) -> Message[Any]:
    """The message of a task.

    Parameters:
      queue: without prefix, by default the task's own.
      priority: 0 to 9, 9 first; by default the one of its kind.
      user_id: the owner of the dream, if known: dreams of one user take turns as one.
    """
    kind = kind_of(name)
    dream_id = kind.dream_of(args) if kind is not None else None
    # An upload counts by its pictures; a deletion is short.
    pictures = len(args[1]) if kind is not None and kind.name == PROCESS_IMAGES and len(args) > 1 else 1
    return Message(
        queue_name=queue_name(settings, name, queue),
        actor_name=name,
        args=tuple(args),
        kwargs={},
        options={
            DELIVERY_ID: delivery_id(task_id, attempt),
            **turn(
                priority=kind.priority if priority is None and kind is not None else priority,
                group="" if dream_id is None else group_of_dream(dream_id, user_id),
                cost=pictures,
            ),
        },
        message_id=task_id,
    )


def missing(broker: AnyBroker, settings: Settings, waiting: Sequence[W]) -> list[W]:
    """The tasks whose messages the broker does not have, in order. A broker that cannot be asked may have any of them.

    Raises:
      BrokerUnavailable
    """
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for task in waiting:
        by_queue[queue_name(settings, task.name, task.queue)].append(delivery_id(task.id, task.attempts))
    lost: set[str] = set()
    with unavailable_as_error():
        for queue, deliveries in by_queue.items():
            lost |= broker.missing(queue, deliveries)
    return [task for task in waiting if delivery_id(task.id, task.attempts) in lost]


def send_missing(broker: AnyBroker, settings: Settings, task: Sendable) -> bool:
    """Send a task again unless the broker has its message; returns whether it was sent.

    Raises:
      BrokerUnavailable
    """
    message = message_of(settings, task.id, task.name, task.args, attempt=task.attempts, queue=task.queue)
    # The row has no trace: this begins one, and the task's id leads to the first.
    with tracing.sending(message, broker.system), unavailable_as_error():
        return broker.enqueue_missing(message)


def queue_name(settings: Settings, name: str, queue: str | None) -> str:
    """The queue, with prefix, of a task: `queue`, or by default the task's own."""
    return settings.queue_prefix + (queue or queue_of(name))

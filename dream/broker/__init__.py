"""The one broker, with its middleware: Redis (or Valkey) by default, RabbitMQ by `DREAM_BROKER_URL`.

A message of ours is a hint that a task's row is worth looking at. It carries the row's id and arguments, and names
its delivery `<task>:<attempt>`, so that the broker can tell whether it has it already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from dramatiq import Message
from dramatiq.middleware import CurrentMessage

from dream.broker.redis import RedisBroker
from dream.errors import BrokerUnavailable
from dream.messages import DELIVERY_ID, QUEUES, delivery_id, queue_of
from dream.middleware.retries import BROKER_AWAY, Retries, RetryPolicy
from dream.middleware.sentry import Sentry
from dream.middleware.time_limit import TimeLimit
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.broker.rabbitmq import RabbitmqBroker
    from dream.settings import Settings

__all__ = [
    "AnyBroker",
    "Sendable",
    "Waiting",
    "make_broker",
    "message_of",
    "missing",
    "queue_name",
    "send",
    "send_missing",
    "unavailable_as_error",
]

AnyBroker: TypeAlias = "RedisBroker | RabbitmqBroker"


def make_broker(settings: Settings) -> AnyBroker:
    """The broker of a process. It connects when it is first used."""
    policy = RetryPolicy.of(settings)
    middleware = [
        Sentry(),
        Retries(max_retries=policy.max_retries, policy=policy),
        TimeLimit(time_limit=settings.time_limit_s * 1000, interval=min(1000, settings.time_limit_s * 100)),
        CurrentMessage(),
    ]
    broker: AnyBroker
    if settings.is_redis_broker:
        broker = RedisBroker(
            client=connect(settings.broker_url, repeats=False),
            namespace=settings.redis_prefix,
            # Whoever looks after the messages of workers that are gone does it: at most 20 s, never a lottery.
            maintenance_chance=1_000_000,
            heartbeat_timeout=int(settings.heartbeat_s * 1000),
            middleware=middleware,
        )
    else:
        from dream.broker.rabbitmq import RabbitmqBroker, patient

        broker = RabbitmqBroker(url=patient(settings.broker_url), middleware=middleware)
    for queue in QUEUES:
        broker.declare_queue(settings.queue_prefix + queue)
    return broker


class Waiting(Protocol):
    """A task that may have to be sent again."""

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


def message_of(
    settings: Settings, task_id: str, name: str, args: Sequence[Any], *, attempt: int = 0, queue: str | None = None
) -> Message[Any]:
    """The message that says: look at this task. It goes to `queue` (without prefix), by default the task's own."""
    return Message(
        queue_name=queue_name(settings, name, queue),
        actor_name=name,
        args=tuple(args),
        kwargs={},
        options={DELIVERY_ID: delivery_id(task_id, attempt)},
        message_id=task_id,
    )


@contextmanager
def unavailable_as_error() -> Iterator[None]:
    """Turn whatever a broker's client raises when the broker does not answer into one error.

    Raises:
      BrokerUnavailable
    """
    try:
        yield
    except BROKER_AWAY as error:
        raise BrokerUnavailable(f"the broker did not answer: {type(error).__name__}") from error


def send(broker: AnyBroker, message: Message[Any], delay_s: float = 0) -> None:
    """Put a message on its queue.

    Raises:
      BrokerUnavailable
    """
    with unavailable_as_error():
        broker.enqueue(message, delay=round(delay_s * 1000) if delay_s > 0 else None)


def missing(broker: AnyBroker, settings: Settings, waiting: Sequence[W]) -> list[W]:
    """Those of the tasks whose messages the broker does not hold, or may not where it cannot be asked; in their order.

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
    """Send a task again unless the broker holds its message after all; says whether it was sent.

    Raises:
      BrokerUnavailable
    """
    message = message_of(settings, task.id, task.name, task.args, attempt=task.attempts, queue=task.queue)
    with unavailable_as_error():
        return broker.enqueue_missing(message)


def queue_name(settings: Settings, name: str, queue: str | None) -> str:
    """The queue, with prefix, of a task: `queue`, or by default the task's own."""
    return settings.queue_prefix + (queue or queue_of(name))

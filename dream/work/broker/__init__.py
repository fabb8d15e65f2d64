"""The broker of a process: Redis (or Valkey) by default, RabbitMQ by `DREAM_BROKER_URL`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from dramatiq import Message
from dramatiq.errors import BrokerError
from dramatiq.middleware import Middleware
from redis import RedisError

from dream.errors import BrokerUnavailable
from dream.observe import tracing
from dream.work.broker.depth import Depth
from dream.work.broker.redis import RedisBroker
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.work.broker.rabbitmq import RabbitmqBroker
    from dream.work.settings import Settings

__all__ = ["BROKER_AWAY", "AnyBroker", "Depth", "make_broker", "send", "unavailable_as_error"]

AnyBroker: TypeAlias = "RedisBroker | RabbitmqBroker"

#: Errors of a broker's client that does not reach its server.
BROKER_AWAY = (RedisError, BrokerError, OSError)


def make_broker(settings: Settings, queues: Iterable[str] = (), *, middleware: Iterable[Middleware] = ()) -> AnyBroker:
    """Make the broker of a process. It connects when it is first used.

    Parameters:
      queues: names without prefix, to declare.
      middleware: in order (`dream.work.worker`). A process that only sends needs none.
    """
    broker: AnyBroker
    if settings.is_redis_broker:
        broker = RedisBroker(
            client=connect(settings.broker_url, repeats=False),
            namespace=settings.redis_prefix,
            # Each call looks for messages of dead workers. (Stock: one call of a thousand.)
            maintenance_chance=1_000_000,
            heartbeat_timeout=int(settings.heartbeat_s * 1000),
            middleware=list(middleware),
        )
    else:
        from dream.work.broker.rabbitmq import RabbitmqBroker, patient

        broker = RabbitmqBroker(url=patient(settings.broker_url), middleware=list(middleware))
    for queue in queues:
        broker.declare_queue(settings.queue_prefix + queue)
    return broker


def client_errors() -> tuple[type[Exception], ...]:
    """The errors of the clients of both brokers, for `except`. Without pika, which is an extra, it raises none."""
    pika: Any = sys.modules.get("pika.exceptions")
    return (RedisError, OSError, *([pika.AMQPError] if pika else ()))


@contextmanager
def unavailable_as_error() -> Iterator[None]:
    """Turn every error of a broker that does not answer into one error.

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
    with tracing.sending(message, broker.system), unavailable_as_error():
        broker.enqueue(message, delay=round(delay_s * 1000) if delay_s > 0 else None)

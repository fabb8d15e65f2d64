"""Dramatiq's RabbitMQ broker, with publisher confirms, time-outs, and a clear error for another system's queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import pika.exceptions
from dramatiq import Consumer, Message, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker as StockRabbitmqBroker
from dramatiq.brokers.rabbitmq import _RabbitmqConsumer as StockConsumer
from dramatiq.common import dq_name, q_name
from dramatiq.errors import ConnectionClosed, DecodeError
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from dream.errors import SettingsError
from dream.fault_points import step
from dream.log import get_logger
from dream.work.broker.depth import Depth
from dream.work.broker.fetched import check_addressed, id_of
from dream.work.messages import REDELIVERED
from dream.work.notify import Pulse

__all__ = ["RabbitmqBroker", "patient"]

log = get_logger(__name__)

#: An option in this process only: the message is not acknowledged.
_UNACKNOWLEDGED = "unacknowledged"
#: The number of tasks that one sweep sends again while a backlog waits.
_DOUBTED_AT_ONCE = 100
#: Delayed messages that a worker prefetches: the most that AMQP allows. RabbitMQ delivers them in the order in which
#: they were sent, so a message that is due soon waits behind others.
_MOST_DELAYED = 65_535
#: Seconds after which a server that is silent, or takes nothing for lack of memory or disk, counts as away. A missing
#: heartbeat is noticed only after twice its time and 10 s more, and a sender waits for that long.
_PATIENCE_S = {"heartbeat": 5, "blocked_connection_timeout": 10, "socket_timeout": 5, "stack_timeout": 5}


def patient(url: str) -> str:
    """The URL with time-outs where pika would wait for minutes or for ever. Time-outs in the URL stay.

    Everything after the host is the virtual host, as in Celery: `amqp://guest@host//` means `/`, and guest's password.
    """
    parts = urlsplit(url)
    named = dict(parse_qsl(parts.query))
    host = quote(unquote(parts.path[1:]) or "/", safe="")
    user = parts.netloc.rpartition("@")[0]
    netloc = parts.netloc.replace("@", ":guest@", 1) if user and ":" not in user else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{host}", query=urlencode({**_PATIENCE_S, **named})))


class RabbitmqBroker(StockRabbitmqBroker):
    """See the module. Its constructor is the stock one, except that it waits for confirms."""

    #: The name in traces.
    system = "rabbitmq"
    #: Whether `missing` and `enqueue_missing` know what the broker has.
    can_be_asked = False

    def __init__(self, *, confirm_delivery: bool = True, **parameters: Any) -> None:
        super().__init__(confirm_delivery=confirm_delivery, **parameters)
        #: Ids of messages in work here that another worker had before; that worker may have died.
        self.suspects: set[str] = set()
        #: The loops of the consumers' threads, by queue.
        self.pulse = Pulse()

    @property
    def consumer_class(self) -> type[Consumer]:
        return _Consumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """See `Broker.consume`."""
        self.pulse.moved(queue_name)
        return super().consume(queue_name, prefetch if queue_name == q_name(queue_name) else _MOST_DELAYED, timeout)

    @property
    def connection(self) -> Any:
        """This thread's connection.

        Raises:
          ConnectionClosed: there is none. (Stock would try six times, each with all its time-outs.)
        """
        try:
            return super().connection
        except (pika.exceptions.AMQPConnectionError, AMQPConnectorException) as error:
            raise ConnectionClosed(error) from None

    @connection.deleter
    def connection(self) -> None:
        vars(StockRabbitmqBroker)["connection"].fdel(self)

    def _declare_queue(self, queue_name: str) -> Any:
        try:
            return super()._declare_queue(queue_name)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 406:  # PRECONDITION_FAILED
                raise
            del self.connection
            raise SettingsError(
                f"RabbitMQ has a queue {queue_name!r} of another kind (Celery's, most likely): "
                "set DREAM_QUEUE_PREFIX to give ours names of their own"
            ) from None

    def enqueue_missing(self, message: Message[Any]) -> bool:
        """Put the message on its queue. RabbitMQ cannot tell which messages it has, so this may double one."""
        self.enqueue(message)
        return True

    def missing(self, queue_name: str, delivery_ids: Sequence[str]) -> set[str]:  # noqa: ARG002
        """All deliveries: RabbitMQ cannot be asked for a message, so any may be missing. See `doubted`."""
        return set(delivery_ids)

    def doubted(self, queue_name: str, count: int) -> int:
        """The number of tasks to resend now, of `count` that may be lost.

        RabbitMQ knows how many messages wait. If at least half as many messages wait as there are such tasks, most
        tasks have their message, and sending all again would double them. So one sweep sends only a few, and the next
        sweep others.
        """
        if count <= _DOUBTED_AT_ONCE or sum(self.depth(queue_name)) < count / 2:
            return count
        return _DOUBTED_AT_ONCE

    def discard(self, queue_name: str) -> int:
        """Delete the messages that wait on a queue, delayed or not, but none in work; returns their number."""
        self.declare_queue(queue_name, ensure=True)
        names = (queue_name, dq_name(queue_name))
        try:
            return sum(self.channel.queue_purge(name).method.message_count for name in names)
        except pika.exceptions.AMQPError as error:
            del self.connection
            raise ConnectionClosed(error) from None

    def depth(self, queue_name: str) -> Depth:
        """Count the messages of a queue; see `Depth`."""
        self.declare_queue(queue_name, ensure=True)
        try:
            return Depth(*self.get_queue_message_counts(queue_name)[:2])
        except pika.exceptions.AMQPError as error:
            del self.connection
            raise ConnectionClosed(error) from None

    def requeue(self, message: MessageProxy, *, is_stopping: bool = False) -> None:
        """Enqueue a copy of a message that is in work; the ack that follows removes the original.

        Parameters:
          is_stopping: the worker stops, so the message is not acknowledged: RabbitMQ requeues it when the connection is
            closed. A copy would run twice if the connection is closed before the ack.
        """
        if is_stopping:
            message.options[_UNACKNOWLEDGED] = True
        else:
            self.enqueue(message.copy(options={REDELIVERED: True}))


class _Consumer(StockConsumer):
    def __init__(self, broker: RabbitmqBroker, *how: Any, **more: Any) -> None:
        super().__init__(broker, *how, **more)
        self._suspects, self._pulse = broker.suspects, broker.pulse
        self.iterator = self._addressed(self.iterator)

    @step("ack")
    def ack(self, message: MessageProxy) -> None:
        if self.queue_name != q_name(self.queue_name):  # only the consumer's own thread moves delayed messages
            self._pulse.moved(self.queue_name)
        if not message.options.get(_UNACKNOWLEDGED):
            super().ack(message)
        self._suspects.discard(message.message_id)

    def nack(self, message: MessageProxy) -> None:
        super().nack(message)
        self._suspects.discard(message.message_id)

    def _addressed(self, deliveries: Iterator[Any]) -> Iterator[Any]:
        """Yield deliveries that a thread can run, and time-outs; dead-letter the others."""
        for method, properties, body in deliveries:
            self._pulse.moved(self.queue_name)
            if method is None or _is_addressed(body, self.queue_name):
                if method is not None and method.redelivered:
                    self._suspects.add(id_of(body))
                yield method, properties, body
            else:
                log.error("message_malformed", queue=self.queue_name)
                self._nack(method.delivery_tag)
                yield None, None, None


def _is_addressed(body: bytes, queue_name: str) -> bool:
    try:
        check_addressed(Message.decode(body), queue_name)
    except DecodeError:
        return True  # stock knows what to do with it
    except TypeError:
        return False
    return True

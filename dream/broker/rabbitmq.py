"""Dramatiq's RabbitMQ broker: publisher confirms on, and a clear word where another system owns our queue's name."""

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

from dream.broker.addressed import check_addressed, id_of
from dream.errors import SettingsError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import REDELIVERED

__all__ = ["RabbitmqBroker", "patient"]

log = get_logger(__name__)

#: The option that says, in this process only, that the message is not acked.
_LEFT = "left"
#: Of a backlog, so many tasks are sent again in one sweep.
_DOUBTED_AT_ONCE = 100
#: So many delayed messages a worker has in its memory at most, the most that AMQP can say: RabbitMQ gives them out as
#: they came, and one that is due soon waits behind those that are late.
_MOST_DELAYED = 65_535
#: Seconds after which a server that is silent, or takes nothing for want of memory or disk, counts as away. A missing
#: heartbeat is noticed only after twice these and 10 s more, and whoever sends waits for it.
_PATIENCE_S = {"heartbeat": 5, "blocked_connection_timeout": 10, "socket_timeout": 5, "stack_timeout": 5}


def patient(url: str) -> str:
    """The URL with time-outs for what would otherwise wait for minutes or for ever; those it names itself stay.

    All behind the host is the virtual host, as for Celery: `amqp://guest@host//` means `/`, and guest's password.
    """
    parts = urlsplit(url)
    named = dict(parse_qsl(parts.query))
    host = quote(unquote(parts.path[1:]) or "/", safe="")
    user = parts.netloc.rpartition("@")[0]
    netloc = parts.netloc.replace("@", ":guest@", 1) if user and ":" not in user else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{host}", query=urlencode({**_PATIENCE_S, **named})))


class RabbitmqBroker(StockRabbitmqBroker):
    """See the module. Its constructor is the stock one, but that it waits for confirms."""

    #: Whether it knows for sure what it holds (`missing`, `enqueue_missing`).
    can_be_asked = False

    def __init__(self, *, confirm_delivery: bool = True, **parameters: Any) -> None:
        super().__init__(confirm_delivery=confirm_delivery, **parameters)
        #: Ids of messages that this worker has, and that one had which may have died.
        self.suspects: set[str] = set()

    @property
    def consumer_class(self) -> type[Consumer]:
        return _Consumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """See `Broker.consume`."""
        return super().consume(queue_name, prefetch if queue_name == q_name(queue_name) else _MOST_DELAYED, timeout)

    @property
    def connection(self) -> Any:
        """This thread's connection.

        Raises:
          ConnectionClosed: there is none to be had. (Stock would try six times, each with all its time-outs.)
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
        """Put the message on its queue. RabbitMQ cannot be asked what it holds, so this may double a message."""
        self.enqueue(message)
        return True

    def missing(self, queue_name: str, delivery_ids: Sequence[str]) -> set[str]:  # noqa: ARG002
        """RabbitMQ cannot be asked for a message: any of them may be missing. But see `doubted`."""
        return set(delivery_ids)

    def doubted(self, queue_name: str, count: int) -> int:
        """How many of `count` tasks that may have been lost to send again now.

        RabbitMQ knows how many messages wait. Where at least half as many wait as tasks are asked for, most tasks have
        their message, and sending all again would double them: only the first few are sent, and others the next time.
        """
        if count <= _DOUBTED_AT_ONCE or self._waiting(queue_name) < count / 2:
            return count
        return _DOUBTED_AT_ONCE

    def discard(self, queue_name: str) -> int:
        """Throw away what waits on a queue, delayed or not, but not what is in work; returns how many messages."""
        self.declare_queue(queue_name, ensure=True)
        names = (queue_name, dq_name(queue_name))
        try:
            return sum(self.channel.queue_purge(name).method.message_count for name in names)
        except pika.exceptions.AMQPError as error:
            del self.connection
            raise ConnectionClosed(error) from None

    def _waiting(self, queue_name: str) -> int:
        self.declare_queue(queue_name, ensure=True)
        try:
            return sum(self.get_queue_message_counts(queue_name)[:2])
        except pika.exceptions.AMQPError as error:
            del self.connection
            raise ConnectionClosed(error) from None

    def hand_back(self, message: MessageProxy, *, is_stopping: bool = False) -> None:
        """Put a copy of a message that is in work back on its queue; the ack that follows removes the original.

        Parameters:
          is_stopping: whether this worker stops: then the message is not acked, and goes to another when this worker's
            connection is closed. A copy would be a second one where that is closed before the ack.
        """
        if is_stopping:
            message.options[_LEFT] = True
        else:
            self.enqueue(message.copy(options={REDELIVERED: True}))


class _Consumer(StockConsumer):
    def __init__(self, broker: RabbitmqBroker, *how: Any, **more: Any) -> None:
        super().__init__(broker, *how, **more)
        self._suspects = broker.suspects
        self.iterator = self._addressed(self.iterator)

    @step("ack")
    def ack(self, message: MessageProxy) -> None:
        if not message.options.get(_LEFT):
            super().ack(message)
        self._suspects.discard(message.message_id)

    def nack(self, message: MessageProxy) -> None:
        super().nack(message)
        self._suspects.discard(message.message_id)

    def _addressed(self, deliveries: Iterator[Any]) -> Iterator[Any]:
        """The deliveries that can be worked on, and time-outs; the others go to the dead letters."""
        for method, properties, body in deliveries:
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

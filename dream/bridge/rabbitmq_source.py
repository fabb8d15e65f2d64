"""Celery's messages in RabbitMQ: protocol 2, its headers as AMQP's. A taken message stays unacked until it is done."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from dream.bridge.protocol import Taken
from dream.bridge.revocations import EXCHANGE, Revocation, revocation_in
from dream.bridge.sources import MOST_BYTES, celerys_queues
from dream.compat.host import host
from dream.errors import InvalidArguments, SettingsError
from dream.fault_points import step
from dream.log import get_logger, redact
from dream.work.broker.rabbitmq import patient

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["RabbitmqSource"]

log = get_logger(__name__)

_FIND_EVERY_S = 5.0


class RabbitmqSource:
    """See `dream.bridge.sources.Source`; the parameters are of `dream.bridge.run.open_source`."""

    in_flight_key = ""

    def __init__(self, settings: Settings, url: str, queues: Sequence[str]) -> None:
        self._url = url
        self._wanted = queues or celerys_queues()
        self._queues: list[str] = []
        self._find_again_at = 0.0
        try:
            self._parameters = pika.URLParameters(patient(url))
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"--from {redact(url)}: {error}") from None
        self._connection: Any = None
        self._channel: Any = None
        self._broadcasts: _Broadcasts | None = None
        ours = set(host().queues)
        if self.is_on(settings.broker_url) and not settings.queue_prefix and set(queues or ours) & ours:
            raise SettingsError(
                "Celery's queues and ours would be the same ones in this RabbitMQ: "
                "set DREAM_QUEUE_PREFIX to give ours names of their own"
            )

    def begin(self) -> Sequence[Taken]:
        self.close()
        self._connection = pika.BlockingConnection(self._parameters)
        self._find()
        self._channel = self._connection.channel()
        self._broadcasts = None
        return []  # RabbitMQ redelivers unacknowledged messages

    @step("bridge_take")
    def take(self, most: int) -> Sequence[Taken]:
        if time.monotonic() >= self._find_again_at:
            self._find()
        taken: list[Taken] = []
        left_bytes = MOST_BYTES
        for queue in self._queues:
            while len(taken) < most and left_bytes > 0 and (message := self._get(queue)) is not None:
                taken.append(message)
                left_bytes -= _size(message)
        if not taken:
            self._connection.process_data_events(0)  # heartbeats
        return taken

    def _get(self, queue: str) -> Taken | None:
        method, properties, body = self._channel.basic_get(queue)
        return None if method is None else Taken(str(method.delivery_tag), queue, _raw(properties, body))

    @step("bridge_remove")
    def done(self, taken: Sequence[Taken]) -> None:
        for each in taken:
            self._channel.basic_ack(int(each.tag))

    parked = done

    def revocations(self) -> Sequence[Revocation]:
        if self._broadcasts is None:
            self._broadcasts = _Broadcasts(self._connection)
        return self._broadcasts.revocations()

    def waiting(self) -> int:
        return sum(self._count(queue) or 0 for queue in self._queues)

    def peek(self) -> Iterator[Taken]:
        self.begin()
        for queue in self._queues:
            while (message := self._get(queue)) is not None:
                yield message
        # Nothing was acknowledged: RabbitMQ puts all messages back in their places.
        self.close()

    def is_on(self, url: str) -> bool:
        return url.startswith("amqp") and _place(self._parameters) == _place(pika.URLParameters(patient(url)))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            with contextlib.suppress(AMQPError):  # it is lost already
                connection.close()

    def _find(self) -> None:
        """Find the queues that exist; others may be created while the bridge runs."""
        self._queues = [queue for queue in self._wanted if self._count(queue) is not None]
        self._find_again_at = time.monotonic() + _FIND_EVERY_S

    def _count(self, queue: str) -> int | None:
        """The number of messages that wait in a queue; None if there is no such queue."""
        channel = self._connection.channel()
        try:
            count: int = channel.queue_declare(queue, passive=True).method.message_count
        except ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return None
        channel.close()
        return count


class _Broadcasts:
    """Receives broadcasts to Celery's workers, in a queue that lives as long as its connection."""

    def __init__(self, connection: Any) -> None:
        self._queue = ""
        self._channel = connection.channel()
        try:
            # As kombu declares it: the bridge may start before the first producer.
            self._channel.exchange_declare(EXCHANGE, "fanout")
            self._queue = self._channel.queue_declare("", exclusive=True).method.queue
            self._channel.queue_bind(self._queue, EXCHANGE)
        except ChannelClosedByBroker as error:
            self._queue = ""
            log.warning("revocations_not_heard", exchange=EXCHANGE, error=f"{error.reply_code} {error.reply_text}")

    def revocations(self) -> list[Revocation]:
        found = []
        while self._queue:
            method, properties, body = self._channel.basic_get(self._queue, auto_ack=True)
            if method is None:
                break
            found.append(revocation_in(_raw(properties, body)))
        return [each for each in found if each is not None]


def _place(parameters: Any) -> tuple[Any, ...]:
    """The virtual host and the address of its server, because a host has several names."""
    try:
        host = min(str(found[4][0]) for found in socket.getaddrinfo(parameters.host, None, socket.AF_INET))
    except OSError:
        host = parameters.host
    return host, parameters.port, parameters.virtual_host


def _size(taken: Taken) -> int:
    return len(taken.raw["body"] if isinstance(taken.raw, Mapping) else taken.raw)


def _raw(properties: Any, body: bytes) -> dict[str, Any]:
    """The message as kombu would write it into Redis."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": properties.content_type,
        "content-encoding": properties.content_encoding,
        "headers": properties.headers or {},
        "properties": {
            "body_encoding": "base64",
            "priority": properties.priority,
            "correlation_id": properties.correlation_id,
            "reply_to": properties.reply_to,
        },
    }

"""The queues of one system on a RabbitMQ that others use, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pika
from dramatiq.common import dq_name, xq_name
from pika.adapters.blocking_connection import BlockingChannel

from dream.messages.registry import QUEUES
from dream.settings import Settings

__all__ = ["delete_queues", "purge_queues"]


def delete_queues(settings: Settings) -> None:
    """Delete every queue with this system's prefix that can be there."""
    with _channel(settings) as channel:
        for name in _names(settings):
            channel.queue_delete(name)


def purge_queues(settings: Settings) -> None:
    """Throw away what waits, delayed messages too."""
    for name in _names(settings):
        # A queue that nobody has declared yet ends the channel.
        with contextlib.suppress(pika.exceptions.ChannelClosedByBroker), _channel(settings) as channel:
            channel.queue_purge(name)


def _names(settings: Settings) -> list[str]:
    names = [settings.queue_prefix + queue for queue in QUEUES]
    return [each for name in names for each in (name, dq_name(name), xq_name(name))]


@contextlib.contextmanager
def _channel(settings: Settings) -> Iterator[BlockingChannel]:
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(settings.broker_url))) as connection:
        yield connection.channel()

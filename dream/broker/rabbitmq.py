"""Dramatiq's RabbitMQ broker: publisher confirms on, and a clear word where another system owns our queue's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pika.exceptions
from dramatiq import Message, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker as StockRabbitmqBroker

from dream.errors import SettingsError

__all__ = ["RabbitmqBroker"]


class RabbitmqBroker(StockRabbitmqBroker):
    """See the module. Its constructor is the stock one, but that it waits for confirms."""

    def __init__(self, *, confirm_delivery: bool = True, **parameters: Any) -> None:
        super().__init__(confirm_delivery=confirm_delivery, **parameters)

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
        """RabbitMQ cannot be asked: any of them may be missing."""
        return set(delivery_ids)

    def hand_back(self, message: MessageProxy) -> None:
        """Put a copy of a message that is in work back on its queue; the ack that follows removes the original."""
        self.enqueue(message._message)

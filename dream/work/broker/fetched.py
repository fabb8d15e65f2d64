"""Validate the field types of a fetched message, for both brokers: other types end a thread of Dramatiq's."""

from __future__ import annotations

from typing import Any

from dramatiq import Message, MessageProxy
from dramatiq.errors import DecodeError

__all__ = ["check_addressed", "id_of"]


def check_addressed(message: Message[Any] | MessageProxy, queue_name: str) -> None:
    """Check that a worker can find the message's actor and its consumer.

    Raises:
      TypeError: a thread that took the message would die.
    """
    is_addressed = message.queue_name == queue_name and isinstance(message.actor_name, str)
    if not (is_addressed and isinstance(message.message_id, str) and isinstance(message.options, dict)):
        raise TypeError("a message with fields of other types than Dramatiq writes")


def id_of(data: bytes) -> str:
    """The id of an encoded message; "" if it cannot be decoded."""
    try:
        return str(Message.decode(data).message_id)
    except DecodeError:
        return ""

"""A broker that keeps what it is given."""

from __future__ import annotations

from typing import Any

from dramatiq import Message

__all__ = ["ListBroker"]


class ListBroker:
    """The calls of a producer on its broker."""

    system = "list"

    def __init__(self) -> None:
        self.sent: list[tuple[Message[Any], int | None]] = []

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        self.sent.append((message, delay))
        return message

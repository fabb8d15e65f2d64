"""The number of messages on a queue."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Depth"]


class Depth(NamedTuple):
    """Messages that are not acknowledged.

    Parameters:
      waiting: no worker has fetched them.
      delayed: they are due later. RabbitMQ does not count those that a worker has fetched to wait for their time.
    """

    waiting: int
    delayed: int

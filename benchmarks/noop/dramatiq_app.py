"""Plain Dramatiq with its own broker and defaults."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.noop.sending import send

__all__ = ["ignored"]

_url = os.environ["NOOP_BROKER"]
dramatiq.set_broker(RabbitmqBroker(url=_url) if _url.startswith("amqp") else RedisBroker(url=_url))


@dramatiq.actor
def ignored() -> None:
    """Do nothing."""


if __name__ == "__main__":
    send({"ignored": ignored.send})

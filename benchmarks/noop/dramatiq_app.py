"""Plain Dramatiq with its own Redis broker, as it comes."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.noop.sending import send

__all__ = ["ignored"]

dramatiq.set_broker(RedisBroker(url=os.environ["NOOP_REDIS"]))


@dramatiq.actor
def ignored() -> None:
    """Nothing."""


if __name__ == "__main__":
    send({"ignored": ignored.send})

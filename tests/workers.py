"""Brokers for Dramatiq's worker in a test's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq.middleware import CurrentMessage, Middleware

from dream.messages.registry import QUEUES
from dream.work.broker import make_broker
from dream.work.middleware.retries import Retries, RetryPolicy
from dream.work.middleware.time_limit import TimeLimit
from dream.work.results import ResultStore
from dream.work.worker import WorkerMiddleware

if TYPE_CHECKING:
    from dream.settings import Settings
    from dream.work.broker import AnyBroker

__all__ = ["answering_broker", "running_broker"]


def running_broker(settings: Settings) -> AnyBroker:
    """A broker whose worker tries again and stops what does not end; nobody asks it anything."""
    policy = RetryPolicy.of(settings)
    middleware: list[Middleware] = [Retries(policy=policy), TimeLimit.of(settings), CurrentMessage()]
    return make_broker(settings, QUEUES, middleware=middleware)


def answering_broker(settings: Settings, name: str) -> AnyBroker:
    """A broker with all middleware of the engine; its worker answers under this name."""
    named = settings.model_copy(update={"worker_name": name})
    return make_broker(settings, QUEUES, middleware=WorkerMiddleware(named, ResultStore(settings)).in_order())

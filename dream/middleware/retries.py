"""Retries: which failures are tried again, when, and that none is lost on its way to the broker.

Dramatiq's own decisions stay (`throws`, `Retry(delay)`, `max_retries`, `retry_when`, `on_retry_exhausted`); ours are
the exact policy, errors that know whether trying again can help, and an enqueue that does not give up quietly.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import redis
from dramatiq import Broker, Message, MessageProxy, Retry
from dramatiq.errors import BrokerError
from dramatiq.middleware import Retries as StockRetries

from dream.errors import DreamError, HandedBack, LeaseLost, TaskRevoked
from dream.log import get_logger
from dream.patience import patiently

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["BROKER_AWAY", "Ledger", "Retries", "RetryPolicy"]

log = get_logger(__name__)

#: What a broker's client raises that does not reach it.
BROKER_AWAY = (redis.RedisError, BrokerError, OSError)


@dataclass(frozen=True)
class RetryPolicy:
    """At most `max_retries` after the first run: 60 s before the first, ×1.5 each time, never over 600 s."""

    max_retries: int = 5
    first_s: float = 60.0
    factor: float = 1.5
    max_s: float = 600.0
    jitter: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> RetryPolicy:
        """The policy that is set."""
        return cls(
            settings.max_retries,
            settings.retry_first_s,
            settings.retry_factor,
            settings.retry_max_s,
            settings.retry_jitter,
        )

    def delay_s(self, retries: int) -> float:
        """Seconds to wait after a run that `retries` retries came before."""
        delay_s = self.first_s * self.factor**retries
        if self.jitter:
            delay_s *= 1 + random.uniform(0, self.jitter)  # noqa: S311
        return min(delay_s, self.max_s)

    def allows(self, retries: int, exception: BaseException, most: int | None = None) -> bool:
        """Whether another run may follow, and could help; `most` is the actor's own `max_retries`, where it has one."""
        return retries < (self.max_retries if most is None else most) and not is_permanent(exception)


def is_permanent(exception: BaseException) -> bool:
    """Whether trying again cannot help. A wrong call is as wrong the next time."""
    return exception.permanent if isinstance(exception, DreamError) else isinstance(exception, TypeError)


class Ledger(Protocol):
    """Whoever keeps attempts in rows is told before a message moves, and when all is said, be it by an error."""

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        """Write the retry down; False where the task is another run's by now, and nothing is to be sent."""

    def has_failed(self, message: MessageProxy, exception: BaseException) -> None:
        """Write the final failure down."""

    def is_judged(self) -> None:
        """The failed run is over, also where nothing could be written down."""


class Retries(StockRetries):
    """See the module.

    Parameters:
      policy: ours; None keeps Dramatiq's back-off.
      ledger: told of every retry before it is enqueued, and of every final failure.
      enqueue_patience_s: how long a retry's enqueue is tried before the message is failed rather than lost.
      **stock: `max_retries`, `min_backoff`, `max_backoff`, `retry_when` as Dramatiq has them.
    """

    def __init__(
        self,
        *,
        policy: RetryPolicy | None = None,
        ledger: Ledger | None = None,
        enqueue_patience_s: float = 60.0,
        **stock: Any,
    ) -> None:
        super().__init__(**stock)
        self.policy = policy
        self.ledger = ledger
        self.enqueue_patience_s = enqueue_patience_s

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None or isinstance(exception, (HandedBack, LeaseLost, TaskRevoked)):
            return
        outbox = _Outbox(broker, self, message, exception)
        try:
            super().after_process_message(outbox, message, result=result, exception=exception)
            if message.failed and self.ledger is not None:
                self.ledger.has_failed(message, exception)
        finally:
            if self.ledger is not None:
                self.ledger.is_judged()

    def delay_s(self, broker: Broker, message: MessageProxy, exception: BaseException, stock_ms: int) -> float:
        """Our delay, unless the actor, the message or the error set its own."""
        options = broker.get_actor(message.actor_name).options
        set_by_hand = isinstance(exception, Retry) and exception.delay is not None
        if self.policy is None or set_by_hand or "min_backoff" in {*options, *message.options}:
            return stock_ms / 1000
        return self.policy.delay_s(message.options["retries"] - 1)


@dataclass(frozen=True)
class _Judged:
    """What the stock middleware sees as the actor that failed: our policy decides for it."""

    options: dict[str, Any]


class _Outbox:
    """What the stock middleware sees as its broker: an enqueue that a short outage does not stop."""

    def __init__(self, broker: Broker, retries: Retries, message: MessageProxy, exception: BaseException) -> None:
        self._broker = broker
        self._retries = retries
        self._message = message
        self._exception = exception

    def get_actor(self, actor_name: str) -> Any:
        actor = self._broker.get_actor(actor_name)
        policy, options = self._retries.policy, {"retry_when": self._retries.retry_when, **actor.options}
        if policy is None or actor_name != self._message.actor_name or options["retry_when"] is not None:
            return actor
        # Stock would leave `max_retries` unread where there is a `retry_when`.
        most = self._message.options.get("max_retries", options.get("max_retries"))
        return _Judged({**options, "retry_when": partial(policy.allows, most=most)})

    def enqueue(self, message: MessageProxy, *, delay: int) -> None:
        delay_s = self._retries.delay_s(self._broker, message, self._exception, delay)
        ledger = self._retries.ledger
        if ledger is not None and not ledger.will_retry(message, self._exception, delay_s):
            return
        due = time.monotonic() + delay_s

        def once() -> None:
            remaining_ms = max(0, math.ceil((due - time.monotonic()) * 1000))
            self._broker.enqueue(_unwrapped(message), delay=remaining_ms)

        def tell(error: Exception, again_in_s: float) -> None:
            log.warning("broker_away", task_id=message.message_id, error=str(error), again_in_s=again_in_s)

        try:
            patiently(once, BROKER_AWAY, told=tell, patience_s=self._retries.enqueue_patience_s)
        except BROKER_AWAY as error:
            log.error("retry_not_enqueued", task_id=message.message_id, error=str(error))
            message.fail()


def _unwrapped(message: MessageProxy) -> Message[Any]:
    return message._message

"""Retries: decide whether and when a failed task runs again, and keep its retry from being lost on the way.

The options of actors and messages are Dramatiq's: `throws`, `Retry(delay)`, `max_retries`, `retry_when`, `min_backoff`,
`max_backoff`, `on_retry_exhausted`. Dream adds the exact policy, errors that know whether a retry can help, and an
enqueue that waits for a broker that is away.
"""

from __future__ import annotations

import math
import random
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dramatiq import Actor, Broker, MessageProxy, Retry
from dramatiq.common import compute_backoff, current_millis
from dramatiq.middleware import Retries as StockRetries
from dramatiq.middleware.retries import DEFAULT_MAX_BACKOFF

from dream.errors import DreamError, HandedBack, LeaseLost, TaskRevoked
from dream.log import get_logger
from dream.work.broker import BROKER_AWAY
from dream.work.patience import patiently

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = ["Ledger", "Retries", "RetryPolicy"]

log = get_logger(__name__)


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
        """The policy of the settings."""
        return cls(
            settings.max_retries,
            settings.retry_first_s,
            settings.retry_factor,
            settings.retry_max_s,
            settings.retry_jitter,
        )

    def delay_s(self, retries: int) -> float:
        """Seconds between a failed run and the next one; `retries` retries came before the failed run."""
        delay_s = self.first_s * self.factor**retries
        if self.jitter:
            delay_s *= 1 + random.uniform(0, self.jitter)  # noqa: S311
        return min(delay_s, self.max_s)

    def allows(self, retries: int, exception: BaseException, most: int | None = None) -> bool:
        """Whether one more retry is allowed and can help.

        Parameters:
          retries: retries so far.
          most: the `max_retries` of the actor or the message, which replaces the policy's.
        """
        return retries < (self.max_retries if most is None else most) and not is_permanent(exception)


def is_permanent(exception: BaseException) -> bool:
    """Whether a retry cannot help. A call with wrong arguments stays wrong."""
    return exception.permanent if isinstance(exception, DreamError) else isinstance(exception, TypeError)


class Ledger(Protocol):
    """Keeps attempts in rows: called before a retry is sent, on the final failure, and always at the end."""

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        """Record the retry; False if another run has the task by now, so that no retry must be sent."""

    def has_failed(self, message: MessageProxy, exception: BaseException) -> None:
        """Record the final failure."""

    def is_judged(self) -> None:
        """The failed run has ended, even if nothing could be recorded."""


class Retries(StockRetries):
    """Dramatiq's middleware with a policy and a ledger. Without these two it decides as Dramatiq's own.

    Parameters:
      policy: decides if actor, message and error have no rule; None means Dramatiq's own rules.
      ledger: records every retry before it is sent, and every final failure.
      enqueue_patience_s: seconds for which a retry waits for a broker that is away; then the message is failed.
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
        result: Any = None,  # noqa: ARG002 (Dramatiq's hook)
        exception: BaseException | None = None,
    ) -> None:
        if exception is None or isinstance(exception, (HandedBack, LeaseLost, TaskRevoked)):
            return
        try:
            self._judge(broker, message, exception)
            if message.failed and self.ledger is not None:
                self.ledger.has_failed(message, exception)
        finally:
            if self.ledger is not None:
                self.ledger.is_judged()

    def _judge(self, broker: Broker, message: MessageProxy, exception: BaseException) -> None:
        actor = broker.get_actor(message.actor_name)
        throws: Any = message.options.get("throws") or actor.options.get("throws")
        if throws and isinstance(exception, throws):
            self.logger.info("Aborting message %r.", message.message_id)
            message.fail()
            return
        retries = message.options.get("retries", 0)
        message.options["retries"] = retries + 1
        message.options["traceback"] = "".join(traceback.format_exception(exception, limit=30))
        message.options["requeue_timestamp"] = current_millis()
        if self._may_retry(actor, message, retries, exception):
            self._retry(broker, message, exception, self._delay_s(actor, message, retries, exception))
        else:
            self._give_up(broker, actor, message, retries)

    # --- whether

    def _may_retry(self, actor: Actor[..., Any], message: MessageProxy, retries: int, exception: BaseException) -> bool:
        retry_when = actor.options.get("retry_when", self.retry_when)
        if retry_when is not None:
            return bool(retry_when(retries, exception))
        if self.policy is not None:
            return self.policy.allows(retries, exception, _options_of(actor, message).get("max_retries"))
        most = self._max_retries(actor, message)
        return most is None or retries < most

    def _max_retries(self, actor: Actor[..., Any], message: MessageProxy) -> int | None:
        most: int | None = _options_of(actor, message).get("max_retries", self.max_retries)
        return most

    def _give_up(self, broker: Broker, actor: Actor[..., Any], message: MessageProxy, retries: int) -> None:
        """Fail the message, and send it to the actor of `on_retry_exhausted`."""
        self.logger.warning("Retries exceeded for message %r.", message.message_id)
        message.fail()
        target = message.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if target:
            numbers = {"retries": retries, "max_retries": self._max_retries(actor, message)}
            broker.get_actor(target).send(message.asdict(), numbers)

    # --- when

    def _delay_s(self, actor: Actor[..., Any], message: MessageProxy, retries: int, exception: BaseException) -> float:
        """The error's own delay, else the back-off of the actor or the message, else the policy's delay."""
        if isinstance(exception, Retry) and exception.delay is not None:
            return exception.delay / 1000
        options = _options_of(actor, message)
        if self.policy is not None and "min_backoff" not in options:
            return self.policy.delay_s(retries)
        first_ms = options.get("min_backoff", self.min_backoff)
        max_ms = min(options.get("max_backoff", self.max_backoff), DEFAULT_MAX_BACKOFF)
        return compute_backoff(retries, factor=first_ms, max_backoff=max_ms)[1] / 1000

    def _retry(self, broker: Broker, message: MessageProxy, exception: BaseException, delay_s: float) -> None:
        """Send the message to run after `delay_s`. An outage of the broker counts as part of the delay."""
        if self.ledger is not None and not self.ledger.will_retry(message, exception, delay_s):
            return
        self.logger.info("Retrying message %r in %d milliseconds.", message.message_id, delay_s * 1000)
        due = time.monotonic() + delay_s

        def enqueue() -> None:
            remaining_ms = max(0, math.ceil((due - time.monotonic()) * 1000))
            broker.enqueue(message._message, delay=remaining_ms)

        def tell(error: Exception, again_in_s: float) -> None:
            log.warning("broker_away", task_id=message.message_id, error=str(error), again_in_s=again_in_s)

        try:
            patiently(enqueue, BROKER_AWAY, told=tell, patience_s=self.enqueue_patience_s)
        except BROKER_AWAY as error:
            log.error("retry_not_enqueued", task_id=message.message_id, error=str(error))
            message.fail()


def _options_of(actor: Actor[..., Any], message: MessageProxy) -> dict[str, Any]:
    """The actor's options, overridden by those of the message."""
    return {**actor.options, **message.options}

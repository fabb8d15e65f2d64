"""The time limit: stop code that runs Python, and ask for a new worker if a thread cannot be stopped.

The flow's own waits (pool, object store, database) look at the run's deadline themselves; this is the backstop.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy
from dramatiq.middleware import TimeLimit as StockTimeLimit

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = ["WEDGED_AFTER_S", "TimeLimit"]

#: A thread this long past its limit blocks: its worker must be replaced.
WEDGED_AFTER_S = 10.0


class TimeLimit(StockTimeLimit):
    """Dramatiq's time limit, which also notices threads that it could not stop.

    Parameters:
      time_limit: milliseconds.
      interval: milliseconds between two looks.
    """

    def __init__(self, *, time_limit: float = 600_000, interval: float = 1000) -> None:
        super().__init__(time_limit=time_limit, interval=int(interval))
        self._given_up_at: dict[int, float] = {}

    @classmethod
    def of(cls, settings: Settings) -> TimeLimit:
        """The limit of `DREAM_TIME_LIMIT_S`, checked every second, or more often if it is short."""
        return cls(time_limit=settings.time_limit_s * 1000, interval=min(1000, settings.time_limit_s * 100))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        super().before_process_message(broker, message)
        actor = broker.get_actor(message.actor_name)
        limit_ms = message.options.get("time_limit") or actor.options.get("time_limit", self.time_limit)
        self._given_up_at[threading.get_ident()] = time.monotonic() + limit_ms / 1000 + WEDGED_AFTER_S

    def after_process_message(self, broker: Broker, message: MessageProxy, **outcome: Any) -> None:
        super().after_process_message(broker, message, **outcome)
        self._given_up_at.pop(threading.get_ident(), None)

    after_skip_message = after_process_message

    def restart(self, limit_ms: float) -> None:
        """Give the run of this thread a limit of its own, from now on."""
        thread_id = threading.get_ident()
        self.manager.add_timeout(thread_id, limit_ms)
        self._given_up_at[thread_id] = time.monotonic() + limit_ms / 1000 + WEDGED_AFTER_S

    def give_up(self, thread_id: int) -> None:
        """Count a thread as wedged: its run was told to stop and did not."""
        if thread_id in self._given_up_at:
            self._given_up_at[thread_id] = time.monotonic()

    def wedged(self) -> set[int]:
        """The ids of the threads that ran on past their limit, though they were told to stop."""
        current = time.monotonic()
        return {thread_id for thread_id, given_up_at in list(self._given_up_at.items()) if current >= given_up_at}

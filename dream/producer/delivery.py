"""When and how an accepted task reaches a worker."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AT_ONCE", "NOT_SENT", "Delivery"]


@dataclass(frozen=True)
class Delivery:
    """How an accepted task reaches a worker.

    Parameters:
      due_in_s: it does not run before that many seconds from now.
      expires_in_s: it does not start after that many seconds from now; None means that it always runs.
      queue: the queue that its message is put on, without prefix; None means the task's own.
      is_sent: False where the caller runs the task itself.
    """

    due_in_s: float = 0
    expires_in_s: float | None = None
    queue: str | None = None
    is_sent: bool = True


AT_ONCE = Delivery()
NOT_SENT = Delivery(is_sent=False)

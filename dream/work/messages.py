"""Names in every message: queues, ids and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream.work.text import is_text

__all__ = [
    "CELERY",
    "COPY",
    "DEFAULT_QUEUE",
    "DELIVERY_ID",
    "HIGHEST_PRIORITY",
    "MAX_ID_LENGTH",
    "NORMAL_PRIORITY",
    "REDELIVERED",
    "SERIES",
    "SUSPECT",
    "TURN",
    "UNKNOWN_FOR_S",
    "delivery_id",
    "group_of",
    "sender_headers",
    "turn",
]

#: The queue of tasks that name no other.
DEFAULT_QUEUE = "default"

#: Characters that a task's id may have: as many as in Celery's own result tables.
MAX_ID_LENGTH = 155

# --- options of messages

#: Names the delivery; two messages with one name count as one. The sender of a message without it writes no rows.
DELIVERY_ID = "delivery_id"
#: Names a series, such as an entry of a schedule: its newest message is enqueued once, even if it is sent again.
SERIES = "series"
#: Names one of several copies of a delivery, on a broker that cannot tell whether it has the delivery: workers run the
#: first copy, and drop the others.
COPY = "copy"
#: A run has requeued the message: this is not its first delivery.
REDELIVERED = "redelivered"
#: Celery's properties of a caller's task (`dream.compat.envelope`). A caller may wait for the result of such a task.
CELERY = "celery"
#: Seconds for which the message has waited for a worker that knows its task.
UNKNOWN_FOR_S = "unknown_for_s"
#: A worker died that had the message in work; since then the message was delayed, so this is a copy of it.
SUSPECT = "suspect"
#: The message's place among others on Redis (`turn`); `dream/work/broker/turns.lua` reads it.
TURN = "turn"

#: Messages of priority 9 are taken first, of 0 last; a message without priority has the normal one.
HIGHEST_PRIORITY, NORMAL_PRIORITY = 9, 5


def delivery_id(task_id: str, attempt: int) -> str:
    """The name of a delivery: the broker keeps each at most once. `attempt` counts the failed runs before it."""
    return f"{task_id}:{attempt}"


def sender_headers(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers that a sender of Celery's, or `apply_async(headers=)`, gave a message; they may name its trace."""
    celery = options.get(CELERY)
    headers = celery.get("headers") if isinstance(celery, dict) else None
    return headers if isinstance(headers, dict) else {}


def turn(*, priority: int | None = None, group: str = "", cost: int = 1) -> dict[str, Any]:
    """The option of a message that needs another place than the normal one; {} for the normal one.

    Parameters:
      priority: 0 to 9; more counts as 9, as on RabbitMQ.
      group: messages are taken by turns among the groups of one priority; "" is the group of all messages without one.
      cost: the group waits until others have had as much, at most 1,000.
    """
    used = NORMAL_PRIORITY if priority is None else min(priority, HIGHEST_PRIORITY)
    normal = {"priority": NORMAL_PRIORITY, "group": "", "cost": 1}
    other = {
        name: value for name, value in {"priority": used, "group": group, "cost": cost}.items() if value != normal[name]
    }
    return {TURN: other} if other else {}


def group_of(options: Mapping[str, Any]) -> str:
    """The group of a message with these options; "" if it has none."""
    of_message = options.get(TURN)
    group = of_message.get("group") if isinstance(of_message, Mapping) else None
    return group if isinstance(group, str) and is_text(group) and len(group.encode()) <= 255 else ""

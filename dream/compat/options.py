"""The values that Celery's options of a call may have, whosever the task is: ids, priorities, times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import uuid4

from dream.arguments import checked_text
from dream.errors import InvalidArguments
from dream.messages import MAX_ID_LENGTH

__all__ = ["MAX_DELAY_S", "MAX_SECONDS", "WITHOUT_EFFECT", "check_priority", "moment_of", "seconds_of", "task_id_of"]

_MAX_PRIORITY = 255
#: The longest time, in seconds, by which a task may be put off.
MAX_DELAY_S = 366 * 86400
#: Beyond these no database can count: a task that was never to start would start after all.
MAX_SECONDS = 1000 * MAX_DELAY_S
#: Of every task, whosever it is: messages are kept on disk as they are, and there are no exchanges.
WITHOUT_EFFECT = frozenset(
    {"compression", "delivery_mode", "exchange", "exchange_type", "mandatory", "retry", "retry_policy", "throw"}
)


def task_id_of(value: Any) -> str:
    """The id that a caller named, or a new one.

    Raises:
      InvalidArguments
    """
    if value is None:
        return str(uuid4())
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise InvalidArguments(f"task_id must be a string of 1 to {MAX_ID_LENGTH} characters, not {value!r}")
    return checked_text(value, "task_id")


def check_priority(value: Any) -> None:
    """Refuse what is no priority.

    Raises:
      InvalidArguments
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_PRIORITY:
        raise InvalidArguments(f"priority must be an integer from 0 to {_MAX_PRIORITY}, not {value!r}")


def seconds_of(name: str, value: Any) -> float:
    """The time from now that an option names.

    Raises:
      InvalidArguments
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= MAX_SECONDS:
        raise InvalidArguments(f"{name} must be a number of seconds, not {value!r}")
    return float(value)


def moment_of(name: str, value: Any, zone: tzinfo) -> datetime:
    """The time that an option names: seconds from now, a datetime, or one that was written as ISO 8601.

    Parameters:
      zone: of a datetime without one.

    Raises:
      InvalidArguments
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidArguments(f"{name} must be a time as ISO 8601 writes it, not {value!r}") from None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    delay_s = seconds_of(name, value)
    if delay_s > MAX_DELAY_S:
        raise InvalidArguments(f"{name} may be {MAX_DELAY_S // 86400} days at most, not {delay_s:.0f} s")
    return datetime.now(UTC) + timedelta(seconds=delay_s)

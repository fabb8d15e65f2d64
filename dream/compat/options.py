"""Check options of `apply_async` that every task has, dream's own or a caller's: their names and values.

An option whose value is None counts as not given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import uuid4

from dream.errors import InvalidArguments
from dream.work.messages import MAX_ID_LENGTH
from dream.work.text import checked_text

__all__ = [
    "MAX_DELAY_S",
    "MAX_SECONDS",
    "WITHOUT_EFFECT",
    "check_delay",
    "due_of",
    "given_options",
    "moment_of",
    "seconds_of",
    "task_id_of",
]

_MAX_PRIORITY = 255
_JSON = ("json", "application/json")
#: The longest delay of a task, in seconds.
MAX_DELAY_S = 366 * 86400
#: The longest time in seconds that databases can compute. Beyond it, a task that must never start would start.
MAX_SECONDS = 1000 * MAX_DELAY_S
#: Options without effect: messages are always on disk, and there are no exchanges.
WITHOUT_EFFECT = frozenset(
    {"compression", "delivery_mode", "exchange", "exchange_type", "mandatory", "retry", "retry_policy", "throw"}
)


def given_options(
    task_name: str, options: Mapping[str, Any], known: Collection[str], instead: Mapping[str, str]
) -> dict[str, Any]:
    """The options that are given, once their names, `priority` and `serializer` have been checked.

    Parameters:
      known: the names that the task takes.
      instead: replacements of others, by name.

    Raises:
      InvalidArguments
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known:
            why = f": {instead[name]}" if name in instead else ""
            raise InvalidArguments(f"{task_name}: the option {name!r} is not supported{why}")
    priority, serializer = given.get("priority", 0), given.get("serializer", "json")
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= _MAX_PRIORITY:
        raise InvalidArguments(f"{task_name}: priority must be an integer from 0 to {_MAX_PRIORITY}, not {priority!r}")
    if serializer not in _JSON:
        raise InvalidArguments(f"{task_name}: serializer must be 'json', not {serializer!r}")
    return given


def task_id_of(value: Any) -> str:
    """The id that a caller gives, or a new one.

    Raises:
      InvalidArguments
    """
    if value is None:
        return str(uuid4())
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise InvalidArguments(f"task_id must be a string of 1 to {MAX_ID_LENGTH} characters, not {value!r}")
    return checked_text(value, "task_id")


def due_of(given: Mapping[str, Any], zone: tzinfo) -> float | datetime | None:
    """The wait in seconds that `countdown` gives, else the moment of `eta`; None without either.

    Parameters:
      zone: of an `eta` without one.

    Raises:
      InvalidArguments
    """
    if "countdown" in given:
        delay_s = seconds_of("countdown", given["countdown"])
        check_delay("countdown", delay_s)
        return delay_s
    if "eta" not in given:
        return None
    if not isinstance(given["eta"], datetime | str):
        raise InvalidArguments(f"eta must be a datetime, not {type(given['eta']).__name__}")
    return moment_of("eta", given["eta"], zone)


def seconds_of(name: str, value: Any) -> float:
    """The seconds from now that an option gives.

    Raises:
      InvalidArguments
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= MAX_SECONDS:
        raise InvalidArguments(f"{name} must be a number of seconds, not {value!r}")
    return float(value)


def check_delay(name: str, delay_s: float) -> None:
    """Refuse a delay that is too long.

    Raises:
      InvalidArguments
    """
    if delay_s > MAX_DELAY_S:
        raise InvalidArguments(f"{name} may be {MAX_DELAY_S // 86400} days at most, not {delay_s:.0f} s")


def moment_of(name: str, value: Any, zone: tzinfo) -> datetime:
    """The moment that an option gives: seconds from now, a datetime, or its text in ISO 8601.

    Parameters:
      zone: of a datetime without one.

    Raises:
      InvalidArguments
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidArguments(f"{name} must be a time in ISO 8601, not {value!r}") from None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    delay_s = seconds_of(name, value)
    check_delay(name, delay_s)
    return datetime.now(UTC) + timedelta(seconds=delay_s)

"""What may be said about how a task of dream's own is sent: Celery's options, each with a meaning or refused by name.

| option | here |
| --- | --- |
| `task_id` | the id; a second task of the same id is not accepted |
| `countdown`, `eta` | not before; an `eta` without time zone is in `DREAM_TIMEZONE` |
| `expires` | seconds or a datetime: a task that has not started by then is revoked |
| `queue`, `routing_key` | one of the two queues |
| `priority` | 0–255, without effect: both queues are first in, first out, as the documented ones are |
| `serializer` | `json`, which it is anyway |
| in `WITHOUT_EFFECT`; `ignore_result`, `add_to_parent` | without effect: it is so anyway, or says nothing here |
| anything else | refused |

An option whose value is None counts as not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from dream.arguments import checked_text
from dream.errors import InvalidArguments
from dream.messages import MAX_ID_LENGTH, QUEUES

if TYPE_CHECKING:
    from dream.producer import Delivery

__all__ = ["WITHOUT_EFFECT", "check_priority", "moment_of", "parse", "seconds_of", "task_id_of"]

_MAX_PRIORITY = 255
_MAX_DELAY_S = 366 * 86400
#: Beyond these no database can count: a task that was never to start would start after all.
_MAX_SECONDS = 1000 * _MAX_DELAY_S
#: Of every task, whosever it is: messages are kept on disk as they are, and there are no exchanges.
WITHOUT_EFFECT = frozenset(
    {"compression", "delivery_mode", "exchange", "exchange_type", "mandatory", "retry", "retry_policy", "throw"}
)
_OF_OURS = WITHOUT_EFFECT | {"add_to_parent", "argsrepr", "ignore_result", "kwargsrepr"}
_KNOWN = frozenset({"countdown", "eta", "expires", "priority", "queue", "routing_key", "serializer", "task_id"})
_WHY_REFUSED = {
    "link": "call the next task in the task itself",
    "link_error": "the dream is told of a failure, and the task's row keeps it",
    "time_limit": "set DREAM_TIME_LIMIT_S for all runs",
    "soft_time_limit": "set DREAM_TIME_LIMIT_S for all runs",
    "connection": "set DREAM_BROKER_URL",
    "producer": "set DREAM_BROKER_URL",
}


def parse(task_name: str, options: Mapping[str, Any]) -> tuple[str, Delivery]:
    """The task's id and how it is delivered.

    Raises:
      InvalidArguments: an option is not supported, or has a value it may not have.
    """
    given = {name: value for name, value in options.items() if value is not None and name not in _OF_OURS}
    for name in given:
        if name not in _KNOWN:
            why = f": {_WHY_REFUSED[name]}" if name in _WHY_REFUSED else ""
            raise InvalidArguments(f"{task_name}: the option {name!r} is not supported{why}")
    from dream.producer import Delivery

    check_priority(given.get("priority", 0))
    if given.get("serializer", "json") != "json":
        raise InvalidArguments(f"serializer must be 'json', not {given['serializer']!r}")
    return task_id_of(given.get("task_id")), Delivery(
        due_in_s=_due_in_s(given), expires_in_s=_expires_in_s(given), queue=_queue(given)
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


def _queue(given: Mapping[str, Any]) -> str | None:
    for name in ("queue", "routing_key"):
        if name in given and given[name] not in QUEUES:
            raise InvalidArguments(f"{name} must be one of {', '.join(QUEUES)}, not {given[name]!r}")
    queue: str | None = given.get("queue", given.get("routing_key"))
    return queue


def check_priority(value: Any) -> None:
    """Refuse what is no priority.

    Raises:
      InvalidArguments
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_PRIORITY:
        raise InvalidArguments(f"priority must be an integer from 0 to {_MAX_PRIORITY}, not {value!r}")


def _due_in_s(given: Mapping[str, Any]) -> float:
    """Seconds from now; `countdown` goes before `eta`, as in Celery."""
    if "countdown" in given:
        delay_s = seconds_of("countdown", given["countdown"])
    elif "eta" in given:
        eta = given["eta"]
        if not isinstance(eta, datetime | str):
            raise InvalidArguments(f"eta must be a datetime, not {type(eta).__name__}")
        delay_s = _until("eta", eta)
    else:
        return 0.0
    if delay_s > _MAX_DELAY_S:
        raise InvalidArguments(f"a task can be put off by {_MAX_DELAY_S // 86400} days at most, not {delay_s:.0f} s")
    return max(0.0, float(delay_s))


def _expires_in_s(given: Mapping[str, Any]) -> float | None:
    """Seconds from now; a time that has passed revokes the task when a worker meets it, as in Celery."""
    if "expires" not in given:
        return None
    value = given["expires"]
    return _until("expires", value) if isinstance(value, datetime) else seconds_of("expires", value)


def seconds_of(name: str, value: Any) -> float:
    """The time from now that an option names.

    Raises:
      InvalidArguments
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _MAX_SECONDS:
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
    if delay_s > _MAX_DELAY_S:
        raise InvalidArguments(f"{name} may be {_MAX_DELAY_S // 86400} days at most, not {delay_s:.0f} s")
    return datetime.now(UTC) + timedelta(seconds=delay_s)


def _until(name: str, moment: datetime | str) -> float:
    from dream.settings import load

    delay_s: float = (moment_of(name, moment, ZoneInfo(load().timezone)) - datetime.now(UTC)).total_seconds()
    return delay_s

"""What may be said about how a task of dream's own is sent: Celery's options, each with a meaning or refused by name.

| option | here |
| --- | --- |
| `task_id` | the id; a second task of the same id is not accepted |
| `countdown`, `eta` | not before; an `eta` without time zone is in `DREAM_TIMEZONE` |
| `expires` | seconds or a datetime: a task that has not started by then is revoked |
| `queue`, `routing_key` | one of the two queues |
| `priority` | 0–255, without effect: both queues are first in, first out, as the documented ones are |
| `serializer` | `json`, which it is anyway |
| in `options.WITHOUT_EFFECT`; `ignore_result`, `add_to_parent` | without effect: so it is anyway, or it says nothing |
| anything else | refused |

An option whose value is None counts as not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from dream.compat.options import (
    MAX_DELAY_S,
    MAX_SECONDS,
    WITHOUT_EFFECT,
    check_priority,
    moment_of,
    seconds_of,
    task_id_of,
)
from dream.errors import InvalidArguments
from dream.messages import QUEUES

if TYPE_CHECKING:
    from dream.producer import Delivery

__all__ = ["parse"]

_MEAN_NOTHING = WITHOUT_EFFECT | {"add_to_parent", "argsrepr", "ignore_result", "kwargsrepr"}
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
    given = {name: value for name, value in options.items() if value is not None and name not in _MEAN_NOTHING}
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


def _queue(given: Mapping[str, Any]) -> str | None:
    for name in ("queue", "routing_key"):
        if name in given and given[name] not in QUEUES:
            raise InvalidArguments(f"{name} must be one of {', '.join(QUEUES)}, not {given[name]!r}")
    queue: str | None = given.get("queue", given.get("routing_key"))
    return queue


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
    if delay_s > MAX_DELAY_S:
        raise InvalidArguments(f"a task can be put off by {MAX_DELAY_S // 86400} days at most, not {delay_s:.0f} s")
    return max(0.0, float(delay_s))


def _expires_in_s(given: Mapping[str, Any]) -> float | None:
    """Seconds from now; a time that has passed revokes the task when a worker meets it, as in Celery."""
    if "expires" not in given:
        return None
    value = given["expires"]
    if not isinstance(value, datetime):
        return seconds_of("expires", value)
    # Long ago is long ago, and never is never: databases know no year 0, nor one of five digits.
    return max(-MAX_SECONDS, min(MAX_SECONDS, _until("expires", value)))


def _until(name: str, moment: datetime | str) -> float:
    from dream.settings import load

    delay_s: float = (moment_of(name, moment, ZoneInfo(load().timezone)) - datetime.now(UTC)).total_seconds()
    return delay_s

"""`revoke` of producers with Celery: kombu broadcasts it to Celery's workers, and the bridge says it to ours.

Redis      it is published on the channel `/<database>.celery.pidbox`
RabbitMQ   it goes to each queue that is bound to the exchange `celery.pidbox`

As with Celery's workers, only who listens hears it: what was said while no bridge ran was not heard.

Source: `kombu/pidbox.py` and `celery/app/control.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream.bridge.protocol import Refused, body_of, text_of

__all__ = ["EXCHANGE", "Revocation", "merged", "revocation_in"]

#: Of the default `control_exchange`.
EXCHANGE = "celery.pidbox"


@dataclass(frozen=True)
class Revocation:
    """Tasks that are not to begin and, with `terminate`, those of them that run are to end."""

    task_ids: tuple[str, ...]
    terminate: bool


def revocation_in(raw: object) -> Revocation | None:
    """What a broadcast revokes; None where it says something else, or says it to some of Celery's workers alone.

    Parameters:
      raw: as kombu writes a message into Redis.
    """
    try:
        said = body_of(raw) if isinstance(raw, Mapping) else None
        if (
            not isinstance(said, dict)
            or said.get("method") != "revoke"
            or said.get("destination")
            or said.get("pattern")
        ):
            return None
        arguments: Any = said.get("arguments")
        named = arguments["task_id"]
        task_ids = tuple(text_of(each, "task_id") for each in ([named] if isinstance(named, str) else named))
        return Revocation(task_ids, bool(arguments.get("terminate")))
    except (AttributeError, LookupError, Refused, TypeError, ValueError):
        return None


def merged(revocations: Sequence[Revocation]) -> list[Revocation]:
    """The same in at most two, for each is told to every worker and waits for its answer."""
    found = []
    for terminate in (False, True):
        task_ids = dict.fromkeys(each for one in revocations if one.terminate is terminate for each in one.task_ids)
        if task_ids:
            found.append(Revocation(tuple(task_ids), terminate))
    return found

"""Revocations by producers with Celery: kombu broadcasts them to Celery's workers, and the bridge tells dream's.

Redis      it is published on the channel `/<database>.celery.pidbox`
RabbitMQ   it goes to each queue that is bound to the exchange `celery.pidbox`

Only a listener hears a broadcast, as with Celery's workers: a revocation is lost if no bridge runs when it is sent.

Source: `kombu/pidbox.py` and `celery/app/control.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream.bridge.protocol import Refused, body_of, text_of

__all__ = ["EXCHANGE", "Revocation", "merged", "revocation_in"]

#: The name of Celery's exchange `control_exchange`, by default.
EXCHANGE = "celery.pidbox"


@dataclass(frozen=True)
class Revocation:
    """Tasks that must not begin. With `terminate`, those that run must end."""

    task_ids: tuple[str, ...]
    terminate: bool


def revocation_in(raw: object) -> Revocation | None:
    """The revocation in a broadcast; None for another command, and for a command to certain Celery workers only.

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
    """Merge revocations into at most two, because each one waits for the answers of all workers."""
    found = []
    for terminate in (False, True):
        task_ids = dict.fromkeys(each for one in revocations if one.terminate is terminate for each in one.task_ids)
        if task_ids:
            found.append(Revocation(tuple(task_ids), terminate))
    return found

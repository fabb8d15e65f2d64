"""The storage use of a site, as its scheduler measured it last: JSON in Redis, for the page of operators.

<prefix>:usage    one JSON object, which expires after an hour
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.db.usage import Usage
    from dream.settings import Settings

__all__ = ["LONGEST_S", "last_usage", "note_usage"]

#: The longest time between two measurements.
LONGEST_S = 1800.0
_KEPT_S = round(2 * LONGEST_S)


def _key(settings: Settings) -> str:
    return f"{settings.redis_prefix}:usage"


def note_usage(settings: Settings, usage: Usage) -> None:
    """Store a measurement.

    Raises:
      RedisError: Redis is away.
    """
    noted = {
        "at": round(time.time(), 3),
        "pictures": usage.pictures,
        "stored_bytes": usage.stored_bytes,
        # As text: a browser's numbers have 53 bits.
        "users": [{**each._asdict(), "user_id": str(each.user_id)} for each in usage.users],
        "staged": usage.staged._asdict(),
    }
    with closing(connect(settings.events_url)) as client:
        client.set(_key(settings), json.dumps(noted), ex=_KEPT_S)


def last_usage(settings: Settings) -> dict[str, Any] | None:
    """The last measurement; None if no scheduler has measured within an hour.

    Raises:
      RedisError: Redis is away.
    """
    with closing(connect(settings.events_url)) as client:
        found: Any = client.get(_key(settings))
    return json.loads(found) if found else None

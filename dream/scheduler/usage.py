"""Measure the storage that pictures take, at a distance that depends on the time that it takes."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from redis import RedisError

from dream.db.usage import measure
from dream.observe.metrics import STAGED_FILES, STORED_BYTES, STORED_PICTURES
from dream.runs.usage import LONGEST_S, note_usage

if TYPE_CHECKING:
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["UsageLook"]

#: The database works on it for one part of this many.
_SHARE = 100


class UsageLook:
    """See the module.

    Parameters:
      settings: Redis, which keeps the last measurement.
      connections: the rows.
    """

    #: Seconds between two calls of `look`.
    every_s = 60.0

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._next_at = 0.0

    def look(self) -> None:
        """Measure, unless the last time was long and recent.

        Raises:
          SQLAlchemyError
        """
        began = time.monotonic()
        if began < self._next_at:
            return
        usage = measure(self._connections.database)
        self._next_at = began + min(LONGEST_S, _SHARE * (time.monotonic() - began))
        STORED_BYTES.set(usage.stored_bytes)
        STORED_PICTURES.set(usage.pictures)
        STAGED_FILES.set(usage.staged.files)
        with suppress(RedisError):  # the next measurement is noted
            note_usage(self._settings, usage)

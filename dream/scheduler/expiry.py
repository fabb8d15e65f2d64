"""Remove direct uploads that nobody completed: first their rows, then the bytes that clients have put."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.db import uploads
from dream.fault_points import step
from dream.log import get_logger
from dream.observe.metrics import ORPHANS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["Expiry"]

log = get_logger(__name__)

_AT_ONCE = 100
_SHORTEST_S, _LONGEST_S = 1.0, 300.0


class Expiry:
    """See the module.

    A row that is gone cannot be completed, so no accepted picture loses its bytes. Bytes that stay because the process
    dies between the two, and those of a request that ends even later, are orphans for the night (`removal.Orphans`).

    Parameters:
      settings: the life of the uploads.
      connections: the rows and the staged bytes.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._database = connections.database
        self._staging = connections.staging
        #: Seconds between two sweeps.
        self.every_s = min(_LONGEST_S, max(_SHORTEST_S, settings.direct_upload_ttl_s / 4 or _LONGEST_S))

    def sweep(self) -> int:
        """Remove all that are over; returns the number of their files."""
        count = 0
        while keys := self._expire():
            self._clear(keys)
            count += len(keys)
        if count:
            ORPHANS.add("direct", amount=count)
            log.info("direct_uploads_expired", files=count)
        return count

    @step("expire")
    def _expire(self) -> list[str]:
        with self._database.begin() as session:
            return [file["staged"] for files in uploads.take_expired(session, _AT_ONCE) for file in files]

    @step("clear")
    def _clear(self, keys: Sequence[str]) -> None:
        self._staging.discard(keys)

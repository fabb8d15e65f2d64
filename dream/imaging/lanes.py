"""Two pools: a picture of a group that has none in work takes the express lane, and all others the busy one.

The children of the busy lane have a lower priority of processor time. So a lone picture goes first for
a processor, while thousands of another group's pictures keep all of them busy.
"""

from __future__ import annotations

import threading
from pathlib import Path

from dream.imaging import Limits
from dream.imaging.pool import Job, Pool

__all__ = ["Lanes"]


class Lanes:
    """A pool of many children for the work of busy groups, and one of few for the first picture of an idle group.

    Parameters:
      busy: takes everything that the other does not take.
      express: takes a picture if a child is free and its group has no other picture in either lane.
    """

    def __init__(self, busy: Pool, express: Pool) -> None:
        self._busy = busy
        self._express = express
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start both pools; see `Pool.start`."""
        self._express.start()
        self._busy.start()

    def submit(self, source: Path, target: Path, limits: Limits | None = None, group: str = "") -> Job:
        """Give a picture to a lane; see `Pool.submit`."""
        with self._lock:
            is_idle = not (self._express.works_for(group) or self._busy.works_for(group))
            lane = self._express if is_idle and self._express.has_room() else self._busy
            return lane.submit(source, target, limits, group)

    def stop(self) -> None:
        """End all children at once; see `Pool.stop`."""
        self._express.stop()
        self._busy.stop()

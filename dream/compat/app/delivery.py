"""What a run can do with the message that it came by."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dream.compat.app.trace import Ended
    from dream.compat.canvas import Signature
    from dream.compat.envelope import Envelope
    from dream.compat.exceptions import Retry

__all__ = ["Delivered"]


class Delivered(Protocol):
    """A message in a worker's hands."""

    def started(self) -> None:
        """The run begins."""

    def watched(self) -> AbstractContextManager[object]:
        """Around the task's own code: its time limits hold, and it can be ended."""

    def retry(self, retry: Retry, envelope: Envelope) -> None:
        """Say that the task will run again, and then put its next message on the queue."""

    def follow(self, link: Signature, *args: Any, **options: Any) -> None:
        """Send a link; a broker that is away for a moment is waited for."""

    def ended(self, ended: Ended) -> None:
        """Say what came of the run."""

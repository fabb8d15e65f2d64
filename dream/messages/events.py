"""The events about the pictures of a dream, as browsers get them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dream.messages.pictures import DeletionError, ImageError, ImageRef, ImageStep

__all__ = ["ImageUpdate", "UpdateStatus"]


class UpdateStatus(StrEnum):
    """`status` of an `image_update`."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DELETE_PROCESSING = "delete_processing"
    DELETE_COMPLETED = "delete_completed"
    DELETE_FAILED = "delete_failed"

    @property
    def is_terminal(self) -> bool:
        return self not in (UpdateStatus.PROCESSING, UpdateStatus.DELETE_PROCESSING)


@dataclass(frozen=True, kw_only=True)
class ImageUpdate:
    """An event about the pictures of one dream (source: docs/contract.md, "WebSocket").

    Parameters:
      dream_id: the dream.
      status: how far the task is.
      images: the pictures that it is about.
      timestamp: seconds since the epoch.
      message: a sentence for a person, or None.
      code: the code of the reason in `message`, or None.
      progress: 0–100, or None.
      errors: the files that failed; for a deletion, the pictures that are not deleted.
      task_id: the task that the event is about; None for a caller's own updates.
      steps: the pictures whose step has changed; the last event of an upload, and a snapshot, have all.
      attempt: the number of failed attempts, if there is one.
      max_retries: the most retries, if there was a failed attempt.
      retry_at: when the next attempt begins, in seconds since the epoch; None if none is waited for.
    """

    dream_id: int
    status: UpdateStatus
    images: tuple[ImageRef, ...] = ()
    timestamp: float = field(default_factory=time.time)
    message: str | None = None
    code: str | None = None
    progress: int | None = None
    errors: tuple[ImageError, ...] | tuple[DeletionError, ...] = ()
    task_id: str | None = None
    steps: tuple[ImageStep, ...] = ()
    attempt: int | None = None
    max_retries: int | None = None
    retry_at: float | None = None

    def as_message(self, seq: str | None = None) -> dict[str, Any]:
        """The JSON object that a socket sends. `seq` is the event's place in its stream."""
        message: dict[str, Any] = {
            "type": "image_update",
            "dream_id": self.dream_id,
            "status": str(self.status),
            "images": list(self.images),
            "timestamp": self.timestamp,
        }
        optional = {
            "message": self.message,
            "code": self.code,
            "progress": self.progress,
            "errors": list(self.errors) or None,
            "task_id": self.task_id,
            "steps": list(self.steps) or None,
            "attempt": self.attempt,
            "max_retries": self.max_retries,
            "retry_at": self.retry_at,
            "seq": seq,
        }
        message.update({name: value for name, value in optional.items() if value is not None})
        return message

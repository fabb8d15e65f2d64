"""All that crosses a process: names, states, arguments and events.

What is ours to build is frozen; what is JSON anyway is a `TypedDict`. The JSON of each is held by a golden test
(`tests/unit/test_messages.py`), because other processes, older releases and browsers read it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from dream.errors import DreamError

__all__ = [
    "ALIASES",
    "CELERY",
    "CLEANUP_TOKENS",
    "COPY",
    "DEFAULT_QUEUE",
    "DELETE_IMAGES",
    "DELIVERY_ID",
    "IMAGES_QUEUE",
    "MAX_ID_LENGTH",
    "OWN_TASKS",
    "PROCESS_IMAGES",
    "QUEUES",
    "REDELIVERED",
    "SERIES",
    "STAGING_PREFIX",
    "SUSPECT",
    "UNKNOWN_FOR_S",
    "EncodedFile",
    "ImageFile",
    "ImageInfo",
    "ImageRef",
    "ImageState",
    "ImageUpdate",
    "TaskState",
    "UpdateStatus",
    "UrlToDelete",
    "VariantRef",
    "check_move",
    "delivery_id",
    "owners_line",
    "queue_of",
    "sources_of",
]

# --- queues and tasks

DEFAULT_QUEUE = "default"
IMAGES_QUEUE = "dream_image_processing"
QUEUES = (DEFAULT_QUEUE, IMAGES_QUEUE)

PROCESS_IMAGES = "dream.celery.tasks.image_tasks.process_and_upload_images"
DELETE_IMAGES = "dream.celery.tasks.image_tasks.delete_dream_images"
CLEANUP_TOKENS = "dream.celery.tasks.token_tasks.cleanup_expired_tokens"

#: Where staged files lie: keys of other objects are in no message.
STAGING_PREFIX = "staging/"

#: Older names, still found in queues and in callers, and what they are now.
ALIASES = {
    "dream.celery.tasks.image_tasks.celery_upload_images": PROCESS_IMAGES,
    "dream.celery.tasks.image_tasks.celery_delete_images": DELETE_IMAGES,
}

#: Every name of a task of ours.
OWN_TASKS = frozenset({PROCESS_IMAGES, DELETE_IMAGES, CLEANUP_TOKENS, *ALIASES})


def queue_of(task_name: str) -> str:
    """The queue, without prefix, on which a task of ours runs."""
    return DEFAULT_QUEUE if task_name == CLEANUP_TOKENS else IMAGES_QUEUE


#: Characters that a task's id may have: as many as in Celery's own result tables.
MAX_ID_LENGTH = 155

# --- options of messages

#: Names the delivery; two messages of one name are one. A message without it was sent by somebody who writes no rows.
DELIVERY_ID = "delivery_id"
#: Names a series, such as an entry of a schedule: its newest message is put on a queue once, however often it is sent
#: and wherever it is by then.
SERIES = "series"
#: Names one of several copies of a delivery, on a broker that cannot tell whether it has it: workers run the copy that
#: is first, and drop the others.
COPY = "copy"
#: A run has put the message back: it is not its first delivery.
REDELIVERED = "redelivered"
#: Celery's properties of a caller's task (`dream.compat.envelope`). Where they are, somebody may wait for the result.
CELERY = "celery"
#: Seconds for which the message has waited for a worker that knows its task.
UNKNOWN_FOR_S = "unknown_for_s"
#: A worker died that had the message, which was put off since: what comes later is a copy.
SUSPECT = "suspect"


def delivery_id(task_id: str, attempt: int) -> str:
    """The name of a delivery: the broker holds each at most once. `attempt` counts the failed runs before it."""
    return f"{task_id}:{attempt}"


# --- arguments


class ImageFile(TypedDict):
    """A file as callers hand it to `upload_images`."""

    name: str
    data: bytes


class EncodedFile(TypedDict):
    """A file inside a message: its bytes are put away under a key (claim-check), or inline as base64."""

    name: str
    staged: NotRequired[str]
    data: NotRequired[str]


class UrlToDelete(TypedDict):
    """An image as callers name it to `delete_images`; `id` is the caller's own and is only echoed.

    Without a `url` the id is that of a row of this dream; an empty `url` names nothing.
    """

    id: int
    url: NotRequired[str]


# --- states


class TaskState(StrEnum):
    """queued → running → succeeded | failed | revoked; running → queued when a run is retried or handed back;
    failed → queued when it is replayed.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Its caller did not want it any more: it had a time until which it was to run, or was revoked.
    REVOKED = "revoked"

    @property
    def is_terminal(self) -> bool:
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


def owners_line(error: str | None) -> str:
    """The first line of a task's stored error: it is for the pictures' owner, the lines below are for operators."""
    return (error or "").partition("\n")[0]


class ImageState(StrEnum):
    """pending → processing → completed | failed; processing → pending (retry), pending → failed (the task has),
    failed → pending (replay); any → deleting → deleted. `deleting` beats everything.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


_MOVES: dict[ImageState, frozenset[ImageState]] = {
    ImageState.PENDING: frozenset({ImageState.PROCESSING, ImageState.FAILED, ImageState.DELETING}),
    ImageState.PROCESSING: frozenset(
        {ImageState.PENDING, ImageState.COMPLETED, ImageState.FAILED, ImageState.DELETING}
    ),
    ImageState.COMPLETED: frozenset({ImageState.DELETING}),
    ImageState.FAILED: frozenset({ImageState.PENDING, ImageState.DELETING}),
    ImageState.DELETING: frozenset({ImageState.DELETED}),
    ImageState.DELETED: frozenset(),
}


def sources_of(target: ImageState) -> list[ImageState]:
    """The states from which an image may go to `target`."""
    return [source for source, targets in _MOVES.items() if target in targets]


def check_move(source: ImageState, target: ImageState) -> None:
    """Refuse a change of state that the diagram does not have.

    Raises:
      DreamError: the move is illegal.
    """
    if target not in _MOVES[source]:
        raise DreamError(f"an image cannot go from {source} to {target}")


# --- events


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


class VariantRef(TypedDict):
    """A smaller version of an image, as rows, listings and events have it."""

    name: str
    url: str
    width_px: int
    height_px: int
    size_bytes: int
    content_type: str


class ImageRef(TypedDict):
    """An image as events name it; what is not known of it is left out."""

    id: int
    url: str
    position: int
    width_px: NotRequired[int]
    height_px: NotRequired[int]
    size_bytes: NotRequired[int]
    content_type: NotRequired[str]
    #: A ThumbHash in base64.
    placeholder: NotRequired[str]
    #: `#rrggbb`
    dominant_colour: NotRequired[str]
    variants: NotRequired[list[VariantRef]]


class ImageInfo(TypedDict):
    """A picture as its owner lists it, over REST or from Python; a value that is not known (yet) is None."""

    id: int
    url: str | None
    position: int
    #: One of `ImageState`; `status` is the same.
    state: str
    status: str
    filename: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    content_type: str | None
    #: A ThumbHash in base64.
    placeholder: str | None
    #: `#rrggbb`
    dominant_colour: str | None
    variants: list[VariantRef]
    #: Why it failed.
    error: str | None
    task_id: str


@dataclass(frozen=True, kw_only=True)
class ImageUpdate:
    """What the browser is told about the images of one dream (source: docs/contract.md, "WebSocket").

    Parameters:
      dream_id: the dream.
      status: where the task is.
      images: the images concerned; each `{"id", "url", "position"}` and what is known of a stored one.
      timestamp: seconds since the epoch.
      message: a sentence for a person, where there is one.
      progress: 0–100, where there is one.
      errors: the files that failed, each `{"name", "position", "error"}`; of a deletion the pictures, each
        `{"id", "url", "error"}`.
      task_id: the task that speaks; None for a caller's own updates.
    """

    dream_id: int
    status: UpdateStatus
    images: tuple[ImageRef, ...] = ()
    timestamp: float = field(default_factory=time.time)
    message: str | None = None
    progress: int | None = None
    errors: tuple[dict[str, Any], ...] = ()
    task_id: str | None = None

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
            "progress": self.progress,
            "errors": list(self.errors) or None,
            "task_id": self.task_id,
            "seq": seq,
        }
        message.update({name: value for name, value in optional.items() if value is not None})
        return message

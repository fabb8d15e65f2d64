"""The states of a task and of a picture, and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dream.errors import DreamError

__all__ = ["Failure", "ImageState", "Step", "TaskState", "check_move", "owners_line", "sources_of"]


class TaskState(StrEnum):
    """queued → running → succeeded | failed | revoked; running → queued when a run is retried or requeued;
    failed → queued when it is replayed, succeeded → queued when failed pictures of an upload are processed again.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: The task was revoked, or its time to start has passed.
    REVOKED = "revoked"

    @property
    def is_terminal(self) -> bool:
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


class Failure(NamedTuple):
    """The reason why a task did not succeed or only partly, in the columns of its row.

    Parameters:
      error: a sentence for the pictures' owner (`owners_line`); the lines below it are for operators.
      error_class: the class of the error that callers get: `module:QualifiedName`; None if the façade chooses it.
      error_code: for programs (`docs/errors.md`, "Codes").
    """

    error: str | None = None
    error_class: str | None = None
    error_code: str | None = None


def owners_line(error: str | None) -> str:
    """The first line of a task's stored error, for the pictures' owner. The lines below it are for operators."""
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


class Step(StrEnum):
    """The step that one picture of an upload has reached, as events say it."""

    #: Its bytes are stored; it waits for its turn, or for the next attempt.
    STAGED = "staged"
    PROCESSING = "processing"
    STORED = "stored"
    FAILED = "failed"


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
    """The states from which a picture may go to `target`."""
    return [source for source, targets in _MOVES.items() if target in targets]


def check_move(source: ImageState, target: ImageState) -> None:
    """Refuse a change of state that the diagram does not have.

    Raises:
      DreamError: the move is illegal.
    """
    if target not in _MOVES[source]:
        raise DreamError(f"an image cannot go from {source} to {target}")

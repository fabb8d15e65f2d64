"""How a task ended: a failure is written into its rows, and what the rows say is told: its result, its state, the last
event of its dream, and what Celery's `AsyncResult` reads. That it was told is noted in the row.

The database is the truth, so all of it can be said again by whoever finds it unsaid (the sweep does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import Row
from sqlalchemy.orm import Session

from dream.db import DreamImage, DreamTask, announcements, images, tasks
from dream.db.tasks import Claim
from dream.errors import ResultsUnavailable
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import (
    DELETE_IMAGES,
    PROCESS_IMAGES,
    ImageRef,
    ImageState,
    ImageUpdate,
    TaskState,
    UpdateStatus,
    owners_line,
)
from dream.results import Meta, meta_of, states

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications import Publisher
    from dream.results import ResultStore

__all__ = [
    "ANNOUNCED",
    "announce",
    "conclude_failure",
    "image_ref",
    "kept_of",
    "kept_of_pictures",
    "of_upload",
    "update_of",
]

log = get_logger(__name__)

_Known = Literal["width_px", "height_px", "size_bytes", "content_type", "placeholder", "dominant_colour", "variants"]

#: What events say of a stored image besides its name and place.
_KNOWN: tuple[_Known, ...] = get_args(_Known)
_STATES = {
    TaskState.QUEUED: states.PENDING,
    TaskState.RUNNING: states.STARTED,
    TaskState.SUCCEEDED: states.SUCCESS,
    TaskState.FAILED: states.FAILURE,
    TaskState.REVOKED: states.REVOKED,
}
#: As what a row's error comes back that an older release wrote, and the end of what was revoked.
_NO_CLASS, _REVOKED = "dream.compat.exceptions:TaskError", "celery.exceptions:TaskRevokedError"
#: The tasks whose end is told to a dream.
ANNOUNCED = (PROCESS_IMAGES, DELETE_IMAGES)


def image_ref(image: DreamImage | Row[Any]) -> ImageRef:
    """A stored image, or its row of `images.page`, as events name it."""
    ref: ImageRef = {"id": image.id, "url": image.url or "", "position": image.position}
    for name in _KNOWN:
        value = getattr(image, name)
        if value:  # an image that was stored by an older release has fewer
            ref[name] = value
    return ref


def of_upload(session: Session, task_id: str) -> list[str]:
    """The result of an upload: the URLs in input order, "" where an image failed or was deleted."""
    return [
        image.url if image.url and image.state is ImageState.COMPLETED else ""
        for image in images.of_task(session, task_id)
    ]


def conclude_failure(
    session: Session,
    claim: Claim,
    error: str,
    state: TaskState = TaskState.FAILED,
    *,
    error_class: str | None = None,
) -> None:
    """End a task that no retry can help, in the caller's transaction.

    Parameters:
      error: why; its first line is for the pictures' owner (`owners_line`).

    What is stored stays: an upload of which some pictures are done ends as completed with errors, unless it is revoked.
    """
    tasks.hold(session, claim)
    if claim.name == PROCESS_IMAGES:
        for unfinished in (ImageState.PENDING, ImageState.PROCESSING):
            images.move_task(session, claim.task_id, unfinished, ImageState.FAILED, owners_line(error))
        urls = of_upload(session, claim.task_id)
        if any(urls) and state is not TaskState.REVOKED:
            tasks.finish(session, claim, TaskState.SUCCEEDED, result=urls, error=error)
            return
    tasks.finish(session, claim, state, error=error, error_class=error_class)


def update_of(session: Session, task: DreamTask) -> ImageUpdate:
    """The last event of a finished task."""
    return _deletion_update(session, task) if task.name == DELETE_IMAGES else _upload_update(session, task)


def _upload_update(session: Session, task: DreamTask) -> ImageUpdate:
    rows = images.of_task(session, task.id)
    stored = tuple(image_ref(image) for image in rows if image.state is ImageState.COMPLETED)
    errors = tuple(
        {"name": image.filename, "position": image.position, "error": image.error or ""}
        for image in rows
        if image.state is ImageState.FAILED
    )
    failed = task.state is not TaskState.SUCCEEDED
    return ImageUpdate(
        dream_id=int(task.args[0]),
        status=UpdateStatus.FAILED if failed else UpdateStatus.COMPLETED,
        images=stored,
        errors=errors,
        message=(owners_line(task.error) or None) if failed else _summary(len(stored), len(errors)),
        progress=100,
        task_id=task.id,
    )


def _summary(stored: int, failed: int) -> str:
    done = f"{stored} picture{'' if stored == 1 else 's'} ready"
    return f"{done}, {failed} failed" if failed else done


def _deletion_update(session: Session, task: DreamTask) -> ImageUpdate:
    outcome: Sequence[bool] = task.result or []
    asked: Sequence[dict[str, Any]] = task.args[1]
    # One without an outcome may have been sent by a stranger: the database is not asked with what its arguments name.
    urls = [item["url"] for item in asked if "url" in item] if outcome else []
    positions = images.positions_of(session, task.args[0], urls) if urls else {}
    refs = tuple(
        ImageRef(id=item["id"], url=item.get("url", ""), position=positions.get(item.get("url", ""), 0))
        for item, deleted in zip(asked, outcome, strict=False)
        if deleted
    )
    errors = tuple(
        {"id": item["id"], "url": item.get("url", ""), "error": "not a picture of this dream"}
        for item, deleted in zip(asked, outcome, strict=False)
        if not deleted
    )
    failed = task.state is not TaskState.SUCCEEDED or (bool(asked) and not refs)
    return ImageUpdate(
        dream_id=int(task.args[0]),
        status=UpdateStatus.DELETE_FAILED if failed else UpdateStatus.DELETE_COMPLETED,
        images=refs,
        errors=errors,
        message=owners_line(task.error) or None,
        progress=100,
        task_id=task.id,
    )


def kept_of(task: DreamTask) -> Meta:
    """What a task's row says, in Celery's form."""
    state = states.RETRY if task.state is TaskState.QUEUED and task.attempts else _STATES[task.state]
    result = task.result if task.state.is_terminal else None
    if state in states.EXCEPTION_STATES:
        module, _, name = (_REVOKED if state == states.REVOKED else task.error_class or _NO_CLASS).partition(":")
        result = {"exc_type": name, "exc_message": [owners_line(task.error)], "exc_module": module}
    return meta_of(task.id, state, result, done_at=task.finished_at)


def kept_of_pictures(session: Session, task_id: str) -> Meta | None:
    """The result of an upload whose row was removed after its time, from its pictures; None without pictures."""
    rows = images.of_task(session, task_id)
    if not rows:
        return None
    done_at = max(image.updated_at for image in rows)
    errors = [image.error for image in rows if image.state is ImageState.FAILED]
    if len(errors) < len(rows):
        return meta_of(task_id, states.SUCCESS, of_upload(session, task_id), done_at=done_at)
    module, _, name = _NO_CLASS.partition(":")
    failure = {"exc_type": name, "exc_message": [errors[0]], "exc_module": module}
    return meta_of(task_id, states.FAILURE, failure, done_at=done_at)


def _last_update(session: Session, task: DreamTask) -> ImageUpdate | None:
    """The last event, or None where nobody is to be told: no dream is concerned, or the arguments name none."""
    if task.name not in ANNOUNCED:
        return None
    try:
        return update_of(session, task)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Sent by a stranger, and refused when it ran. Whatever comes after it must still be said.
        log.warning("outcome_not_told", task_id=task.id, error=repr(error))
        return None


@step("notify")
def announce(database: Database, publisher: Publisher, results: ResultStore, task_id: str) -> bool:
    """Publish how a task ended, as an event and as a result. The sweep repeats what fails.

    Returns:
      Whether both are published, or need not be.
    """
    with database.read() as session:
        task = session.get(DreamTask, task_id)
        if task is None or not task.state.is_terminal:
            return task is None
        update, kept = _last_update(session, task), kept_of(task)
        ending = f"{task_id}:end:{task.finished_at}"  # a replayed task ends again
    is_kept = _keep(results, kept)
    is_told = (update is None or publisher.publish(update, once=ending)) and is_kept
    if is_told:
        with database.begin() as session:
            announcements.mark_announced(session, task_id)
    return is_told


def _keep(results: ResultStore, kept: Meta) -> bool:
    try:
        results.put(kept)
    except ResultsUnavailable as error:
        log.warning("result_not_kept", task_id=kept["task_id"], error=str(error))
        return False
    return True

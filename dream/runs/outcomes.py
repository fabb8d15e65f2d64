"""Outcomes of tasks: write a failure into the rows, and announce the end that the rows hold.

An announcement is the last event of the task, and the result for Celery's `AsyncResult`; the row notes it. The
database decides, so the sweep can repeat an announcement that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from dream.db import DreamImage, DreamTask, images, tasks
from dream.db.tasks import Claim
from dream.errors import Reason, ResultsUnavailable
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import DeletionError, ImageRef, ImageStep, image_error, image_ref, image_step
from dream.messages.registry import PROCESS_IMAGES, kind_of, load
from dream.messages.states import Failure, ImageState, TaskState, owners_line
from dream.work import results as states
from dream.work.results import Meta, meta_of

if TYPE_CHECKING:
    from dream.runs.connections import Connections
    from dream.work.results import ResultStore

__all__ = [
    "announce",
    "conclude_failure",
    "deletion_event",
    "kept_of",
    "kept_of_pictures",
    "of_upload",
    "steps_of",
    "update_of",
    "upload_event",
]

log = get_logger(__name__)

_STATES = {
    TaskState.QUEUED: states.PENDING,
    TaskState.RUNNING: states.STARTED,
    TaskState.SUCCEEDED: states.SUCCESS,
    TaskState.FAILED: states.FAILURE,
    TaskState.REVOKED: states.REVOKED,
}
#: Error classes for rows older than `error_class`, and for revoked tasks.
_NO_CLASS, _REVOKED = "dream.compat.exceptions:TaskError", "celery.exceptions:TaskRevokedError"


def of_upload(session: Session, task_id: str) -> list[str]:
    """The result of an upload: the URLs in input order, "" for a picture that failed or was deleted."""
    return [
        image.url if image.url and image.state is ImageState.COMPLETED else ""
        for image in images.of_task(session, task_id)
    ]


def conclude_failure(
    session: Session,
    claim: Claim,
    failure: Failure,
    state: TaskState = TaskState.FAILED,
) -> None:
    """End a task that no retry can help, in the caller's transaction.

    Stored pictures stay: an upload with some pictures done ends as completed with errors, unless it is revoked.
    """
    tasks.check_lease(session, claim)
    if claim.name == PROCESS_IMAGES:
        reason = owners_line(failure.error), failure.error_code
        for unfinished in (ImageState.PENDING, ImageState.PROCESSING):
            images.move_task(session, claim.task_id, unfinished, ImageState.FAILED, *reason)
        urls = of_upload(session, claim.task_id)
        if any(urls) and state is not TaskState.REVOKED:
            tasks.finish(session, claim, TaskState.SUCCEEDED, result=urls, failure=failure._replace(error_class=None))
            return
    tasks.finish(session, claim, state, failure=failure)


def update_of(session: Session, task: DreamTask) -> ImageUpdate | None:
    """The last event of a finished task; None if the task has no dream."""
    kind = kind_of(task.name)
    if kind is None or kind.last_event is None:
        return None
    update: ImageUpdate = load(kind.last_event)(session, task)
    return update


def upload_event(session: Session, task: DreamTask) -> ImageUpdate:
    """The last event of an upload."""
    rows = images.of_task(session, task.id)
    stored = tuple(image_ref(image) for image in rows if image.state is ImageState.COMPLETED)
    errors = tuple(image_error(image) for image in rows if image.state is ImageState.FAILED)
    failed = task.state is not TaskState.SUCCEEDED
    return ImageUpdate(
        dream_id=int(task.args[0]),
        status=UpdateStatus.FAILED if failed else UpdateStatus.COMPLETED,
        images=stored,
        errors=errors,
        message=(owners_line(task.error) or None) if failed else _summary(len(stored), len(errors)),
        code=task.error_code if failed else None,
        progress=100,
        task_id=task.id,
        steps=_steps(rows),
    )


def steps_of(session: Session, task_id: str) -> tuple[ImageStep, ...]:
    """The steps of the pictures of a task; none for a task without pictures."""
    return _steps(images.of_task(session, task_id))


def _steps(rows: Sequence[DreamImage]) -> tuple[ImageStep, ...]:
    return tuple(step for image in rows if (step := image_step(image)))


def _summary(stored: int, failed: int) -> str:
    done = f"{stored} picture{'' if stored == 1 else 's'} ready"
    return f"{done}, {failed} failed" if failed else done


def deletion_event(session: Session, task: DreamTask) -> ImageUpdate:
    """The last event of a deletion."""
    outcome: Sequence[bool] = task.result or []
    asked: Sequence[dict[str, Any]] = task.args[1]
    # A stranger may have sent a task without outcome, so its unchecked arguments are not used in a query.
    urls = [item["url"] for item in asked if "url" in item] if outcome else []
    positions = images.positions_of(session, task.args[0], urls) if urls else {}
    refs = tuple(
        ImageRef(id=item["id"], url=item.get("url", ""), position=positions.get(item.get("url", ""), 0))
        for item, deleted in zip(asked, outcome, strict=False)
        if deleted
    )
    errors = tuple(
        DeletionError(
            id=item["id"],
            url=item.get("url", ""),
            error=Reason.NOT_OF_THIS_DREAM.sentence,
            code=Reason.NOT_OF_THIS_DREAM.code,
        )
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
        code=task.error_code,
        progress=100,
        task_id=task.id,
    )


def kept_of(task: DreamTask) -> Meta:
    """The result in a task's row, in Celery's form."""
    state = states.RETRY if task.state is TaskState.QUEUED and task.attempts else _STATES[task.state]
    result = task.result if task.state.is_terminal else None
    if state in states.EXCEPTION_STATES:
        module, _, name = (_REVOKED if state == states.REVOKED else task.error_class or _NO_CLASS).partition(":")
        result = {"exc_type": name, "exc_message": [owners_line(task.error)], "exc_module": module}
    return meta_of(task.id, state, result, done_at=task.finished_at)


def kept_of_pictures(session: Session, task_id: str) -> Meta | None:
    """The result of an upload from its pictures, after retention has removed its row; None without pictures."""
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
    """The last event; None if the task has no dream, or if its arguments name none."""
    try:
        return update_of(session, task)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A stranger sent this task, and its run refused it. The announcements of other tasks must go on.
        log.warning("outcome_not_told", task_id=task.id, error=repr(error))
        return None


@step("notify")
def announce(connections: Connections, task_id: str) -> bool:
    """Publish a task's outcome as an event and as a result. The sweep repeats a failed announcement.

    Returns:
      Whether both are published, or need not be.
    """
    database = connections.database
    with database.read() as session:
        task = session.get(DreamTask, task_id)
        if task is None or not task.state.is_terminal:
            return task is None
        kind = kind_of(task.name)
        update, kept = _last_update(session, task), kept_of(task) if kind is None or kind.has_result else None
        ending = f"{task_id}:end:{task.finished_at}"  # a replayed task ends again
    is_kept = kept is None or _keep(connections.results, kept)
    is_told = (update is None or connections.publisher.publish(update, once=ending)) and is_kept
    if is_told:
        with database.begin() as session:
            tasks.mark_announced(session, task_id, task.finished_at)
    return is_told


def _keep(results: ResultStore, kept: Meta) -> bool:
    try:
        results.put(kept)
    except ResultsUnavailable as error:
        log.warning("result_not_kept", task_id=kept["task_id"], error=str(error))
        return False
    return True

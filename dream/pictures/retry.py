"""Process a failed picture again, with all retries, while its uploaded file is there.

Its upload runs again as by `dream dlq replay`: the other failed pictures of that upload are processed again too, and
the stored ones stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.blocking import warn_on_loop
from dream.errors import Reason, RetryRefused
from dream.messages.arguments import check_dream_id, check_image_id
from dream.messages.states import ImageState, TaskState
from dream.producer import default
from dream.producer.backlog import check_backlog

if TYPE_CHECKING:
    from dream.db import DreamImage, DreamTask
    from dream.producer import Producer

__all__ = ["process_again", "retry"]

_WAITING = (ImageState.PENDING, ImageState.PROCESSING)
#: A task that was revoked does not run again.
_ENDED = (TaskState.FAILED, TaskState.SUCCEEDED)


def retry(dream_id: int, image_id: int) -> str | None:
    """Process a failed picture again.

    Returns:
      The id of its task, also if the picture waits or is in work already; None if the dream does not have it.

    Raises:
      InvalidArguments: the arguments are wrong.
      RetryRefused: the picture is stored, its file is gone, or the rest of its upload is in work.
      TooManyPending: too many pictures wait already.
      DatabaseUnavailable, ObjectStoreUnavailable, AccessDenied, BucketMissing: nothing was changed.
    """
    warn_on_loop("dream.pictures.retry")
    check_dream_id(dream_id)
    check_image_id(image_id)
    return process_again(default(), dream_id, image_id)


def process_again(producer: Producer, dream_id: int, image_id: int) -> str | None:
    """Process a failed picture again; results and errors as of `retry`."""
    from dream.db.faults import explained
    from dream.producer.dead_letters import reopen

    with explained():
        image = _image_of(producer, dream_id, image_id)
        if image is None:
            return None
        if image.state in _WAITING:
            return image.task_id
        _check(producer, image)
        task = _revive(producer, image)
    if task is not None:
        reopen(producer, task.id)
        _publish(producer, image)
        producer.send_again(task)
    return image.task_id


def _image_of(producer: Producer, dream_id: int, image_id: int) -> DreamImage | None:
    from dream.db import images

    with producer.database.read() as session:
        image = images.by_id(session, dream_id, image_id)
    is_gone = image is None or image.state in (ImageState.DELETING, ImageState.DELETED)
    return None if is_gone else image


def _check(producer: Producer, image: DreamImage) -> None:
    if image.state is ImageState.COMPLETED:
        raise RetryRefused.because(Reason.IMAGE_NOT_FAILED)
    if not image.staging_key or not producer.connections.staging.exists(image.staging_key):
        raise RetryRefused.because(Reason.UPLOAD_GONE)
    check_backlog(producer.settings, producer.database, 1, image.dream_id, image.user_id)


def _revive(producer: Producer, image: DreamImage) -> DreamTask | None:
    """Make the picture's task new again; None if another caller did so just now."""
    from dream.db import DreamTask, dead_letters
    from dream.storage import new_key_stem

    with producer.database.begin() as session:
        task = dead_letters.revive(session, image.task_id, new_key_stem, _ENDED)
        if task is not None:
            return task
        found = session.get(DreamTask, image.task_id)
    if found is None or found.state.is_terminal:
        raise RetryRefused.because(Reason.UPLOAD_GONE)
    now = _image_of(producer, image.dream_id, image.id)
    if now is not None and now.state in _WAITING:
        return None
    raise RetryRefused.because(Reason.UPLOAD_IN_WORK)


def _publish(producer: Producer, image: DreamImage) -> None:
    """Tell open pages that the picture waits."""
    from dream.messages.events import ImageUpdate, UpdateStatus
    from dream.messages.pictures import image_step
    from dream.messages.states import Step

    step = image_step(image, Step.STAGED)
    producer.connections.publisher.publish(
        ImageUpdate(
            dream_id=image.dream_id,
            status=UpdateStatus.PROCESSING,
            message="the failed pictures of an upload are processed again",
            steps=(step,) if step else (),
            task_id=image.task_id,
        )
    )

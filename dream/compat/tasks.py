"""The tasks that workers know, and the app that has them.

    task(…)        accepted, not sent, run here  ─► its result
    task.delay(…)  accepted, sent                ─► AsyncResult

Either way a task goes through the producer: inline bytes are checked and staged, rows come before messages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.arguments import decode_inline
from dream.compat.app.base import Celery
from dream.compat.app.own import OwnTask
from dream.compat.app.task import Task
from dream.compat.schedules import crontab
from dream.errors import InvalidArguments
from dream.messages import ALIASES, CLEANUP_TOKENS, DELETE_IMAGES, PROCESS_IMAGES
from dream.producer import NOT_SENT, Delivery, Order, Producer, default

if TYPE_CHECKING:
    from dream.messages import EncodedFile, ImageFile, UrlToDelete

__all__ = ["app", "cleanup_expired_tokens", "delete_dream_images", "own_task", "process_and_upload_images"]

app = Celery("dream", set_as_current=False)
app.sends_unknown = False


@functools.cache
def _timetable() -> dict[str, dict[str, Any]]:
    """Our own timetable as Celery writes it; what is added to it runs as well."""
    from dream.scheduler.timetable import TIMETABLE

    return {
        entry.name: {"task": entry.task, "schedule": crontab(minute=entry.at.minute, hour=entry.at.hour)}
        for entry in TIMETABLE
    }


app.conf.compute("beat_schedule", _timetable)


def _known(name: str, order: Callable[..., Order]) -> Callable[[Callable[..., Any]], Task]:
    """Register a task that workers know, under its name and its older ones."""

    def register(function: Callable[..., Any]) -> Task:
        task = app.register_task(OwnTask(app, name, function, order))
        app.tasks.update({alias: task for alias, target in ALIASES.items() if target == name})
        return task

    return register


def _run_here(order: Callable[..., Order], *arguments: Any) -> Any:
    from dream.actors.inline import run_recorded
    from dream.settings import load

    settings, task_id = load(), str(uuid4())
    default().accept(order(default(), task_id, NOT_SENT, *arguments))
    return run_recorded(settings, default(), task_id)


def own_task(name: str) -> OwnTask:
    """One of dream's own tasks, by one of its names."""
    task = app.tasks[name]
    assert isinstance(task, OwnTask)  # noqa: S101 (all of that app are)
    return task


# --- what each becomes


def _upload(
    producer: Producer, task_id: str, delivery: Delivery, dream_id: int, encoded_files: Any, positions: Any
) -> Order:
    return producer.order_upload(dream_id, _decoded(encoded_files), positions, task_id=task_id, delivery=delivery)


def _deletion(
    producer: Producer, task_id: str, delivery: Delivery, dream_id: int, image_urls: Any, username: Any
) -> Order:
    return producer.order_deletion(dream_id, image_urls, username, task_id=task_id, delivery=delivery)


def _cleanup(_producer: Producer, task_id: str, delivery: Delivery) -> Order:
    return Order(task_id, CLEANUP_TOKENS, [], delivery)


def _decoded(encoded_files: Any) -> list[ImageFile]:
    if not isinstance(encoded_files, Sequence) or isinstance(encoded_files, str | bytes):
        raise InvalidArguments(f"encoded_files must be a list of {{name, data}}, not {type(encoded_files).__name__}")
    return [_decoded_file(file, f"encoded_files[{index}]") for index, file in enumerate(encoded_files)]


def _decoded_file(file: Any, where: str) -> ImageFile:
    if not isinstance(file, Mapping) or not {"name", "data"} <= file.keys():
        raise InvalidArguments(f'{where} must be {{"name": str, "data": base64 str}}')
    try:
        return decode_inline({"name": file["name"], "data": file["data"]})
    except InvalidArguments:
        raise InvalidArguments(f"{where} ({file['name']}): data is not base64") from None


# --- the tasks


@_known(PROCESS_IMAGES, _upload)
def process_and_upload_images(dream_id: int, encoded_files: list[EncodedFile], positions: list[int]) -> list[str]:
    """Process and store pictures.

    Parameters:
      dream_id: the dream they belong to.
      encoded_files: each `{"name": str, "data": base64 str}`.
      positions: offset of each in the dream's text.

    Returns:
      The URLs in input order, "" where a picture of several could not be processed.

    Raises:
      InvalidArguments: the arguments are wrong.
      ImageRejected: no picture could be processed.
    """
    urls: list[str] = _run_here(_upload, dream_id, encoded_files, positions)
    return urls


@_known(DELETE_IMAGES, _deletion)
def delete_dream_images(dream_id: int, image_urls: list[UrlToDelete], username: str) -> list[bool]:
    """Delete pictures of a dream.

    Parameters:
      dream_id: the dream they belong to.
      image_urls: each `{"id": int, "url": str}`.
      username: the dream's owner.

    Returns:
      For each whether it is gone.
    """
    gone: list[bool] = _run_here(_deletion, dream_id, image_urls, username)
    return gone


@_known(CLEANUP_TOKENS, _cleanup)
def cleanup_expired_tokens() -> int:
    """Delete expired revocations of tokens; returns how many."""
    deleted: int = _run_here(_cleanup)
    return deleted

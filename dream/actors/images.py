"""The image actors: thin, a line a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq

from dream.actors import broker, shared
from dream.actors.deletion import delete
from dream.actors.upload import upload
from dream.errors import ImageRejected, InvalidArguments, TaskRevoked
from dream.messages import ALIASES, DELETE_IMAGES, IMAGES_QUEUE, PROCESS_IMAGES
from dream.middleware.run import current_run

__all__ = ["BACKSTOP_MS", "delete_dream_images", "process_and_upload_images"]

_settings = shared.settings
#: The flow looks at its deadline itself; Dramatiq's limit stops what does not.
BACKSTOP_MS = (_settings.time_limit_s + min(2.0, _settings.time_limit_s / 10)) * 1000
_options: dict[str, Any] = {
    "queue_name": _settings.queue_prefix + IMAGES_QUEUE,
    "broker": broker,
    "durable": True,
    "time_limit": BACKSTOP_MS,
    # Not a fault of ours: told to the owner, not logged as a crash.
    "throws": (ImageRejected, InvalidArguments, TaskRevoked),
}


def process_and_upload_images(dream_id: int, encoded_files: list[Any], positions: list[int]) -> list[str]:
    """See `upload`."""
    return upload(shared, current_run(), dream_id, encoded_files, positions)


def delete_dream_images(dream_id: int, image_urls: list[Any], username: str) -> list[bool]:
    """See `delete`."""
    return delete(shared, current_run(), dream_id, image_urls, username)


_functions: dict[str, Callable[..., Any]] = {
    PROCESS_IMAGES: process_and_upload_images,
    DELETE_IMAGES: delete_dream_images,
}
for _name, _function in _functions.items():
    dramatiq.actor(actor_name=_name, **_options)(_function)
for _alias, _name in ALIASES.items():
    dramatiq.actor(actor_name=_alias, **_options)(_functions[_name])

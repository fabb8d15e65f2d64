"""The calls of the web layer: `upload_images`, `delete_images`, `list_images` and `set_owner`. Stage, record, send.

    bytes ─► object store (staging/…) ─► task and image rows ─► message with keys only ─► the task's id

A call that returns has been accepted for good: its rows are committed. A call that raises has left nothing.
The broker may be away: the message is sent later by the sweep. Light to import: no Pillow, and boto3 and SQLAlchemy
only when something is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from dream.messages import ImageFile, ImageInfo, UrlToDelete
from dream.producer.accepting import Producer
from dream.producer.delivery import AT_ONCE, NOT_SENT, Delivery
from dream.producer.listing import ImageList
from dream.producer.recording import Order

__all__ = [
    "AT_ONCE",
    "NOT_SENT",
    "Delivery",
    "ImageInfo",
    "ImageList",
    "Order",
    "Producer",
    "configured_by",
    "default",
    "delete_images",
    "forget_default",
    "list_images",
    "set_owner",
    "upload_images",
]

_default: Producer | None = None
_configure: Callable[[], object] | None = None


def default() -> Producer:
    """The producer of this process, configured by the environment; the current app fills in what is unset."""
    global _default
    from dream.settings import load

    if _default is None and _configure is not None:
        _configure()
    settings = load()
    if _default is None or (_default.settings is not settings and _default.settings != settings):
        _default = Producer(settings)
    return _default


def configured_by(configure: Callable[[], object]) -> None:
    """Register a function that is called before the default producer is made, to fill in unset settings."""
    global _configure
    _configure = configure


def forget_default() -> None:
    """Make the next call of `default` start anew."""
    global _default
    _default = None


# A web server that forks its workers must not share our connections between them.
os.register_at_fork(after_in_child=forget_default)


def upload_images(
    dream_id: int, image_files: Sequence[ImageFile], positions: Sequence[int] | None = None, **how: Any
) -> str:
    """See `Producer.upload_images`."""
    return default().upload_images(dream_id, image_files, positions, **how)


def delete_images(dream_id: int, image_urls: Sequence[UrlToDelete], username: str, **how: Any) -> str:
    """See `Producer.delete_images`."""
    return default().delete_images(dream_id, image_urls, username, **how)


def list_images(dream_id: int, *, limit: int | None = None, cursor: str | None = None) -> ImageList:
    """See `Producer.list_images`."""
    return default().list_images(dream_id, limit=limit, cursor=cursor)


def set_owner(dream_id: int, user_id: int, username: str = "", **how: Any) -> None:
    """See `Producer.set_owner`."""
    default().set_owner(dream_id, user_id, username, **how)

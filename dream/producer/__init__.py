"""What the web layer calls: `upload_images` and `delete_images`. Stage, record, send.

    bytes ─► object store (staging/…) ─► task and image rows ─► message with keys only ─► the task's id

A call that returns has been accepted for good: its rows are committed. A call that raises has left nothing.
The broker may be away: the message is sent later by the sweep. Light to import: no Pillow, and boto3 and SQLAlchemy
only when something is sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dream.messages import ImageFile, UrlToDelete
from dream.producer.accepting import Producer
from dream.producer.delivery import AT_ONCE, NOT_SENT, Delivery
from dream.producer.recording import Order

__all__ = [
    "AT_ONCE",
    "NOT_SENT",
    "Delivery",
    "Order",
    "Producer",
    "default",
    "delete_images",
    "forget_default",
    "upload_images",
]

_default: Producer | None = None


def default() -> Producer:
    """The producer of this process, configured by the environment."""
    global _default
    if _default is None:
        from dream.settings import load

        _default = Producer(load())
    return _default


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

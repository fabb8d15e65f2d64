"""The calls of the web layer: `upload_images`, `delete_images`, `list_images`, direct uploads and `set_owner`.

    bytes ─► object store (staging/…) ─► rows of task and pictures ─► message with keys only ─► the task's id

A call that returns has been accepted for good: its rows are committed. A call that raises has left nothing.
The broker may be away: the message is sent later by the sweep. Light to import: no Pillow, and boto3 and SQLAlchemy
only when something is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dream.messages.arguments import ImageFile, UrlToDelete
from dream.messages.direct import DirectUpload
from dream.messages.pictures import ImageInfo
from dream.messages.receipts import AcceptedUpload
from dream.messages.users import UserId
from dream.producer import direct
from dream.producer.accepting import Producer
from dream.producer.listing import ImageList
from dream.producer.orders import AT_ONCE, NOT_SENT, Delivery, Order
from dream.runs.connections import Connections
from dream.work import connection

__all__ = [
    "AT_ONCE",
    "NOT_SENT",
    "Connections",
    "Delivery",
    "ImageInfo",
    "ImageList",
    "Order",
    "Producer",
    "begin_direct_upload",
    "complete_direct_upload",
    "default",
    "delete_images",
    "forget_default",
    "list_images",
    "original_url",
    "set_owner",
    "upload_images",
]

_default: Producer | None = None


def default() -> Producer:
    """The producer of this process, over its default connection; closing that one closes it."""
    global _default
    from dream.settings import load

    messaging = connection.default()
    if _default is None or _default.connections.messaging is not messaging:
        connections = Connections(load(), messaging=messaging)
        messaging.on_close(connections.close)
        _default = Producer(load(), connections)
    return _default


def forget_default() -> None:
    """Make the next call of `default` start anew, over another connection."""
    global _default
    _default = None
    connection.forget_default()


def upload_images(
    dream_id: int, image_files: Sequence[ImageFile], positions: Sequence[int] | None = None, **how: Any
) -> str:
    """See `Producer.upload_images`."""
    return default().upload_images(dream_id, image_files, positions, **how)


def begin_direct_upload(
    dream_id: int, files: Sequence[Mapping[str, Any]], *, user_id: UserId | None = None
) -> DirectUpload:
    """See `dream.producer.direct.begin`."""
    return direct.begin(default(), dream_id, files, user_id=user_id)


def complete_direct_upload(dream_id: int, upload_id: str, *, priority: int | None = None) -> AcceptedUpload:
    """See `dream.producer.direct.complete`."""
    return direct.complete(default(), dream_id, upload_id, priority=priority)


def delete_images(dream_id: int, image_urls: Sequence[UrlToDelete], username: str, **how: Any) -> str:
    """See `Producer.delete_images`."""
    return default().delete_images(dream_id, image_urls, username, **how)


def list_images(dream_id: int, *, limit: int | None = None, cursor: str | None = None, **how: Any) -> ImageList:
    """See `Producer.list_images`."""
    return default().list_images(dream_id, limit=limit, cursor=cursor, **how)


def original_url(dream_id: int, image_id: int) -> str | None:
    """See `Producer.original_url`."""
    return default().original_url(dream_id, image_id)


def set_owner(dream_id: int, user_id: UserId, username: str = "", **how: Any) -> None:
    """See `Producer.set_owner`."""
    default().set_owner(dream_id, user_id, username, **how)

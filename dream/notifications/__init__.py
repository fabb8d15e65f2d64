"""Live events through Redis streams: published anywhere, read by gateways (`dream.notifications.subscribe`).

Light to import: Redis is loaded with the first event that is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from dream.blocking import warn_on_loop
from dream.errors import InvalidArguments
from dream.messages import ImageRef, ImageUpdate, UpdateStatus
from dream.notifications.publish import Publisher

__all__ = ["Publisher", "send_image_update"]


@lru_cache(maxsize=1)
def _default_publisher() -> Publisher:
    from dream.settings import load

    return Publisher(load())


def send_image_update(
    dream_id: int,
    image_urls: Sequence[str | Mapping[str, Any]] | None = None,
    status: str = "completed",
    message: str | None = None,
    progress: float | None = None,
) -> bool:
    """Tell every open page of a dream something about its images (source: docs/contract.md, "Python").

    Parameters:
      dream_id: the dream.
      image_urls: URLs, or dicts `{"id", "url", "position"}` of which only `url` must be there. An image without
        an id gets a negative one, so that a page cannot take it for a stored one's; without a position, 0.
      status: one of `processing`, `completed`, `failed`, `delete_processing`, `delete_completed`, `delete_failed`.
      message: a sentence for a person.
      progress: 0–100.

    Returns:
      Whether Redis took it.

    Raises:
      InvalidArguments: there is no such status, `progress` is out of range, or an item is no image.
    """
    warn_on_loop("send_image_update")
    if isinstance(image_urls, str | bytes | Mapping):
        raise InvalidArguments("image_urls must be a list of URLs or of dicts with a url")
    update = ImageUpdate(
        dream_id=_number(dream_id, "dream_id"),
        status=_status(status),
        images=tuple(_image(item, index) for index, item in enumerate(image_urls or ())),
        message=message,
        progress=_progress(progress),
    )
    return _default_publisher().publish(update)


def _status(value: str) -> UpdateStatus:
    try:
        return UpdateStatus(value)
    except ValueError:
        allowed = ", ".join(UpdateStatus)
        raise InvalidArguments(f"status must be one of {allowed}, not {value!r}") from None


def _progress(value: float | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise InvalidArguments(f"progress must be a number from 0 to 100, not {value!r}")
    return int(value)


def _image(item: str | Mapping[str, Any], index: int) -> ImageRef:
    if isinstance(item, str):
        return {"id": -1 - index, "url": item, "position": 0}
    if not isinstance(item, Mapping) or not isinstance(item.get("url"), str):
        raise InvalidArguments(f"image {index} must be a URL or a dict with a url, not {item!r}")
    image_id, position = item.get("id"), item.get("position")
    return {
        "id": -1 - index if image_id is None else _number(image_id, "id"),
        "url": item["url"],
        "position": 0 if position is None else _number(position, "position"),
    }


def _number(value: object, name: str) -> int:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        raise InvalidArguments(f"{name} must be a number, not {value!r}") from None

"""List a dream's pictures as objects."""

from __future__ import annotations

from typing import Any

from dream.blocking import warn_on_loop
from dream.pictures.picture import Picture
from dream.producer import list_images

__all__ = ["Pictures", "list_pictures"]


class Pictures(list[Picture]):
    """A list of pictures.

    Parameters:
      next_cursor: the cursor of the next page; None on the last page.
    """

    next_cursor: str | None = None


def list_pictures(dream_id: int, *, limit: int | None = None, cursor: str | None = None, **how: Any) -> Pictures:
    """List a dream's pictures, without pictures that are being deleted. Arguments and errors as of `list_images`."""
    warn_on_loop("dream.pictures.list")
    page = list_images(dream_id, limit=limit, cursor=cursor, **how)
    found = Pictures(map(Picture.of, page))
    found.next_cursor = page.next_cursor
    return found

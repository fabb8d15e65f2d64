"""List a dream's pictures for Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dream.errors import InvalidArguments
from dream.messages.arguments import check_dream_id, check_image_id
from dream.messages.listing import ListOrder, check_order, check_states, cursor_behind, parse_cursor
from dream.messages.pictures import ImageInfo, image_info
from dream.messages.states import ImageState

if TYPE_CHECKING:
    from dream.db import Database, DreamImage

__all__ = ["ImageList", "list_images", "stored_image"]

#: The largest limit, as databases take it.
_MAX_INTEGER = 2**31 - 1


class ImageList(list[ImageInfo]):
    """A list of pictures.

    Parameters:
      next_cursor: the cursor of the next page; None on the last page.
    """

    next_cursor: str | None = None


def list_images(
    database: Database,
    dream_id: int,
    limit: int | None = None,
    cursor: str | None = None,
    order: str = ListOrder.POSITION,
    states: Iterable[str] | None = None,
) -> ImageList:
    """See `Producer.list_images`."""
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db import images
    from dream.db.faults import explain

    check_dream_id(dream_id)
    wanted, shown = check_order(order), check_states(states)
    after = None if cursor is None else parse_cursor(cursor, wanted)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= _MAX_INTEGER):
        raise InvalidArguments(f"limit must be a positive integer, not {limit!r}")
    try:
        with database.read() as session:
            # One row more than the limit shows whether there is a next page.
            most = limit and limit + 1
            rows = images.page(session, dream_id, after=after, limit=most, order=wanted, states=shown)
    except SQLAlchemyError as error:
        raise explain(error, "the pictures cannot be listed") from error
    page = rows[:limit]
    found = ImageList(map(image_info, page))
    found.next_cursor = cursor_behind(page[-1], wanted) if len(rows) > len(page) else None
    return found


def stored_image(database: Database, dream_id: int, image_id: int) -> DreamImage | None:
    """The stored picture of this id in this dream, or None.

    Raises:
      InvalidArguments: an id is no positive integer.
      DatabaseUnavailable
    """
    from dream.db import images
    from dream.db.faults import explained

    check_dream_id(dream_id)
    check_image_id(image_id)
    with explained(), database.read() as session:
        image = images.by_id(session, dream_id, image_id)
    return image if image is not None and image.state is ImageState.COMPLETED else None

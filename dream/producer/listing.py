"""List a dream's pictures for Python and REST: one source for their fields and cursors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream.errors import InvalidArguments
from dream.messages.arguments import MAX_ID, check_dream_id, check_image_id
from dream.messages.pictures import ImageInfo, image_info
from dream.messages.states import ImageState

if TYPE_CHECKING:
    from dream.db import Database, DreamImage

__all__ = ["CURSOR", "ImageList", "cursor_behind", "list_images", "parse_cursor", "stored_image"]

#: The form of cursors, for clients.
CURSOR = r"^-?[0-9]{1,10}\.[0-9]{1,19}$"
#: The largest value of an integer column of 32 bits, for positions and limits.
_MAX_INTEGER = 2**31 - 1


class ImageList(list[ImageInfo]):
    """Pictures in the order of the dream's text.

    Parameters:
      next_cursor: the cursor of the next page; None on the last page.
    """

    next_cursor: str | None = None


def list_images(database: Database, dream_id: int, limit: int | None = None, cursor: str | None = None) -> ImageList:
    """See `Producer.list_images`."""
    from sqlalchemy.exc import SQLAlchemyError

    from dream.db import images
    from dream.db.faults import explain

    check_dream_id(dream_id)
    after = None if cursor is None else parse_cursor(cursor)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= _MAX_INTEGER):
        raise InvalidArguments(f"limit must be a positive integer, not {limit!r}")
    try:
        with database.read() as session:
            # One row more than the limit shows whether there is a next page.
            rows = images.page(session, dream_id, after=after, limit=limit and limit + 1)
    except SQLAlchemyError as error:
        raise explain(error, "the pictures cannot be listed") from error
    page = rows[:limit]
    found = ImageList(map(image_info, page))
    found.next_cursor = cursor_behind(page[-1].position, page[-1].id) if len(rows) > len(page) else None
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


def cursor_behind(position: int, image_id: int) -> str:
    """The cursor of the page after this picture."""
    return f"{position}.{image_id}"


def parse_cursor(cursor: Any) -> tuple[int, int]:
    """The position and the id of the picture before the page.

    Raises:
      InvalidArguments: the text is no cursor.
    """
    position, _, image_id = cursor.partition(".") if isinstance(cursor, str) else ("", "", "")
    digits = position.removeprefix("-")
    if not all(text.isascii() and text.isdecimal() and len(text) <= 19 for text in (digits, image_id)):
        raise InvalidArguments(f"cursor must be the next_cursor of an earlier list, not {cursor!r}")
    if int(digits) > _MAX_INTEGER or int(image_id) > MAX_ID:
        raise InvalidArguments(f"cursor must be the next_cursor of an earlier list, not {cursor!r}")
    return int(position), int(image_id)

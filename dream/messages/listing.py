"""The orders of a list of pictures, the states that it shows, and the cursors of its pages.

position   <position>.<id>   after that picture, in the order of the dream's text
newest     newest.<id>       after that picture, the newest first
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from dream.errors import InvalidArguments
from dream.messages.arguments import MAX_ID, MAX_POSITION
from dream.messages.states import ImageState

__all__ = ["CURSOR", "SHOWN_STATES", "ListOrder", "check_order", "check_states", "cursor_behind", "parse_cursor"]

#: The form of cursors, for clients.
CURSOR = r"^(?:-?[0-9]{1,10}|newest)\.[0-9]{1,19}$"


class ListOrder(StrEnum):
    """The order of a list."""

    #: The order of the dream's text; pictures of one position by their ids.
    POSITION = "position"
    #: The order of their ids, the highest first.
    NEWEST = "newest"


#: The states of the pictures that their owner sees.
SHOWN_STATES = (ImageState.PENDING, ImageState.PROCESSING, ImageState.COMPLETED, ImageState.FAILED)


def check_order(order: Any) -> ListOrder:
    """The order of that name.

    Raises:
      InvalidArguments: there is none.
    """
    try:
        return ListOrder(order)
    except ValueError:
        raise InvalidArguments(f"order must be one of {', '.join(ListOrder)}, not {order!r:.60}") from None


def check_states(states: Iterable[Any] | None) -> frozenset[ImageState] | None:
    """The states of those names; None means all.

    Raises:
      InvalidArguments: no picture is ever listed in one of them, or there are none.
    """
    if states is None:
        return None
    wanted = [states] if isinstance(states, str) else list(states)
    unknown = next((each for each in wanted if each not in SHOWN_STATES), None)
    if unknown is not None or not wanted:
        raise InvalidArguments(f"state must be some of {', '.join(SHOWN_STATES)}, not {unknown or ''!r:.60}")
    return frozenset(map(ImageState, wanted))


def cursor_behind(picture: Any, order: ListOrder) -> str:
    """The cursor of the page after this picture."""
    return f"{picture.position if order is ListOrder.POSITION else order}.{picture.id}"


def parse_cursor(cursor: Any, order: ListOrder) -> tuple[int, ...]:
    """The keys of the picture before the page: its position, if the list is in that order, and its id.

    Raises:
      InvalidArguments: the text is no cursor, or the cursor of a list in another order.
    """
    first, _, image_id = cursor.partition(".") if isinstance(cursor, str) else ("", "", "")
    is_newest = first == ListOrder.NEWEST
    digits = "0" if is_newest else first.removeprefix("-")
    if not all(text.isascii() and text.isdecimal() and len(text) <= 19 for text in (digits, image_id)):
        raise InvalidArguments(f"cursor must be the next_cursor of an earlier list, not {cursor!r}")
    if int(digits) > MAX_POSITION or int(image_id) > MAX_ID:
        raise InvalidArguments(f"cursor must be the next_cursor of an earlier list, not {cursor!r}")
    if is_newest is not (order is ListOrder.NEWEST):
        other = ListOrder.NEWEST if is_newest else ListOrder.POSITION
        raise InvalidArguments(
            f"cursor is of a list in the order {other}, not {order}; keep the order, or begin anew without a cursor"
        )
    return (int(image_id),) if is_newest else (int(first), int(image_id))

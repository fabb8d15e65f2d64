"""Give a stored picture its focal point: the point that its crops keep.

One transaction writes the point into the picture's row, and records the tasks that make its stored crops anew. Until a
crop is made, its URL shows the older one. Crops that are not stored yet are made around the point when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.blocking import warn_on_loop
from dream.messages.arguments import check_dream_id, check_focus, check_image_id
from dream.producer import default

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.producer import Producer

__all__ = ["give_focus", "set_focus"]


def set_focus(dream_id: int, image_id: int, focus: Sequence[float] | None) -> bool:
    """Give a picture its focal point.

    Parameters:
      focus: `[x, y]`, each 0 to 1, from the top left of the upright picture; None brings the found point back.

    Returns:
      Whether the dream has this picture.

    Raises:
      InvalidArguments: the arguments are wrong.
      DatabaseUnavailable: nothing was changed.
    """
    warn_on_loop("set_focus")
    check_dream_id(dream_id)
    check_image_id(image_id)
    return give_focus(default(), dream_id, image_id, check_focus(focus, "focus")) is not None


def give_focus(producer: Producer, dream_id: int, image_id: int, focus: list[float] | None) -> DreamImage | None:
    """Write a checked focal point, and have crops made around it.

    Returns:
      The picture; None if the dream does not have it.

    Raises:
      DatabaseUnavailable: nothing was changed.
    """
    from dream.db import images
    from dream.db.faults import explained

    with explained(), producer.database.begin() as session:
        image = images.give_focus(session, dream_id, image_id, focus)
        if image is not None:
            producer.accept_crops(image, session)
    return image

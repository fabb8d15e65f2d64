"""Read the private facts about a photo."""

from __future__ import annotations

from dream.blocking import warn_on_loop
from dream.messages.arguments import check_dream_id, check_image_id
from dream.messages.pictures import PhotoFacts
from dream.producer import default

__all__ = ["photo_facts"]


def photo_facts(dream_id: int, image_id: int) -> PhotoFacts | None:
    """Read when, where and with what a photo was taken. Show it to the dream's owner only.

    Returns:
      The facts that `DREAM_KEEP_FACTS` kept; None if there are none, or no such picture.

    Raises:
      InvalidArguments: an id is no positive integer.
      DatabaseUnavailable, DatabaseRefused
    """
    from dream.db import images
    from dream.db.faults import explained

    warn_on_loop("dream.pictures.facts")
    check_dream_id(dream_id)
    check_image_id(image_id)
    with explained(), default().connections.database.read() as session:
        image = images.detail(session, dream_id, image_id)
    return image.facts if image is not None else None

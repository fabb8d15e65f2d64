"""Give pictures of a dream new positions: all of them, or none; open pages follow by an event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dream.blocking import warn_on_loop
from dream.messages.arguments import check_dream_id, check_image_id, check_positions
from dream.producer import default

if TYPE_CHECKING:
    from dream.producer import Producer

__all__ = ["give_positions", "reorder"]

#: Pictures in one event.
_OF_EVENT = 100


def reorder(dream_id: int, positions: Mapping[int, int]) -> bool:
    """Give pictures new positions in the dream's text.

    Parameters:
      positions: the position of each picture, by its id.

    Returns:
      Whether the dream has all of these pictures; if not, nothing was changed.

    Raises:
      InvalidArguments: the arguments are wrong.
      DatabaseUnavailable: nothing was changed.
    """
    warn_on_loop("dream.pictures.reorder")
    check_dream_id(dream_id)
    for image_id in positions:
        check_image_id(image_id)
    check_positions(list(positions.values()), len(positions))
    return not give_positions(default(), dream_id, positions)


def give_positions(producer: Producer, dream_id: int, positions: Mapping[int, int]) -> Collection[int]:
    """Write checked positions, and publish them.

    Returns:
      The ids that the dream does not have; if there is one, nothing was changed.

    Raises:
      DatabaseUnavailable: nothing was changed.
    """
    from dream.db import images
    from dream.db.faults import explained

    with explained(), producer.database.begin() as session:
        moved = images.give_positions(session, dream_id, positions)
    missing = positions.keys() - {row.id for row in moved}
    if not missing:
        _publish(producer, dream_id, moved)
    return missing


def _publish(producer: Producer, dream_id: int, moved: Collection[Any]) -> None:
    from dream.messages.events import ImageUpdate, UpdateStatus
    from dream.messages.pictures import image_ref
    from dream.messages.states import ImageState

    refs = [image_ref(row) for row in moved if row.state == ImageState.COMPLETED and row.url]
    for start in range(0, len(refs), _OF_EVENT):
        images = tuple(refs[start : start + _OF_EVENT])
        producer.connections.publisher.publish(
            ImageUpdate(dream_id=dream_id, status=UpdateStatus.COMPLETED, images=images)
        )

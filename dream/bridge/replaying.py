"""Parked messages, handed over again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.bridge.handover import Moved
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.bridge.handover import Handover
    from dream.bridge.parked import ParkingPlace
    from dream.bridge.protocol import Taken

__all__ = ["replayed"]


def replayed(place: ParkingPlace, handover: Handover, tags: Sequence[str] | None) -> Moved:
    """Hand these over, or all; what is still not understood stays, with its reason of now.

    Raises:
      InvalidArguments: nothing is parked under such an id.
    """
    if tags is None:
        chosen = list(place.all())
    else:
        found = {tag: place.find(tag) for tag in tags}
        missing = [tag for tag, each in found.items() if each is None]
        if missing:
            raise InvalidArguments(f"nothing is parked as {missing[0]}: `dream bridge parked` shows what is")
        chosen = [each for each in found.values() if each is not None]
    refused, understood = handover.sort(each.taken for each in chosen)
    moved = Moved(parked=len(refused))
    handover.move(_Place(place, handover), [taken for taken, _ in understood], moved)
    handover.park(refused)
    return moved


class _Place:
    """The parking place as an origin of messages."""

    in_flight_key = ""

    def __init__(self, place: ParkingPlace, handover: Handover) -> None:
        self._place = place
        self._handover = handover

    def done(self, taken: Sequence[Taken]) -> None:
        self._handover.forget_failures(taken)
        self._place.remove([each.tag for each in taken])

    def parked(self, taken: Sequence[Taken]) -> None:
        """Each is under the name that it had, which is made of its bytes."""

    def is_on(self, url: str) -> bool:  # noqa: ARG002
        return False

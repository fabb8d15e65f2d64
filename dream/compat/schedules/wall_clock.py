"""Where the times of a wall clock lie: clocks go forward and skip some, go back and show some twice.

    forward   01:00   01:30 │ 03:00   03:30     02:30 is skipped: the change stands for it
    back      01:00   01:30 │ 01:00   01:30     01:30 is shown twice
                         change

Moments are aware and in UTC, walls are naive. Of a zone only its way from UTC to local time is used, which every kind
of `tzinfo` gets right: on its way back it would have to guess.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

__all__ = ["change_of_clocks", "moments", "offset", "round_down", "wall_clock"]

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)


def wall_clock(moment: datetime, zone: tzinfo) -> datetime:
    """What a wall clock in the zone shows at the moment."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def offset(moment: datetime, zone: tzinfo) -> timedelta:
    """How far local time is ahead of UTC at the moment."""
    return wall_clock(moment, zone) - moment.replace(tzinfo=None)


def moments(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """When the clock shows it: once, twice, or never; where never, the moment at which clocks skip it."""
    near = wall.replace(tzinfo=UTC)
    # No change of clocks that matters is further away: local time is within 14 h of UTC.
    offsets = {offset(near - _DAY, zone), offset(near + _DAY, zone)}
    shown = sorted(near - each for each in offsets if wall_clock(near - each, zone) == wall)
    return tuple(shown) or (change_of_clocks(near - max(offsets), near - min(offsets), zone),)


def change_of_clocks(after: datetime, until: datetime, zone: tzinfo) -> datetime:
    """A moment in (after, until] at which clocks change; local time's offsets differ at these two."""
    before, low, high = offset(after, zone), 0, (until - after) // _MICROSECOND
    while high - low > 1:
        middle = (low + high) // 2
        if offset(after + middle * _MICROSECOND, zone) == before:
            low = middle
        else:
            high = middle
    return after + high * _MICROSECOND


def round_down(moment: datetime, step: timedelta, zone: tzinfo) -> datetime:
    """The last moment, this one or before it, at which the clock shows a full `step`: an hour, a minute or a second.

    Where clocks skip such a time, the change stands for it.
    """
    wall = wall_clock(moment, zone)
    full = wall - (wall - datetime.min) % step
    begin = moment - (wall - full)
    if wall_clock(begin, zone) == full:
        return begin
    change = change_of_clocks(begin, moment, zone)
    just_before = change - _MICROSECOND
    if wall_clock(just_before, zone) < full <= wall_clock(change, zone):
        return change
    return round_down(just_before, step, zone)

"""Time zones of a test's own: local time is what the test needs now, and clocks change in a few seconds.

A file of the time zone database as any other (RFC 8536, version 1), under a folder for `PYTHONTZPATH`.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

__all__ = ["write_zone"]

_HALF_DAY_S = 12 * 3600
_HEADER = struct.Struct(">4sc15x6l")
_KIND = struct.Struct(">lbb")


def write_zone(folder: Path, name: str, local_now: time, switch_in_s: int = 0, by_s: int = 0) -> datetime:
    """Write the zone `name`; returns the moment, in UTC, at which its clock shows `local_now` (about now).

    Parameters:
      folder: what `PYTHONTZPATH` names.
      local_now: what its clock shows now.
      switch_in_s: when its clock is changed; 0 for never.
      by_s: by how much it is put forward (negative: back).
    """
    moment = datetime.now(UTC).replace(microsecond=0)
    shown = timedelta(hours=local_now.hour, minutes=local_now.minute, seconds=local_now.second)
    since_midnight = timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second)
    offset_s = round((shown - since_midnight).total_seconds())
    offset_s = (offset_s + _HALF_DAY_S) % (2 * _HALF_DAY_S) - _HALF_DAY_S
    switches = [int(moment.timestamp()) + switch_in_s] if switch_in_s else []
    kinds = [(offset_s, 0, 0), (offset_s + by_s, 1, 0)]
    data = _HEADER.pack(b"TZif", b"\0", 0, 0, 0, len(switches), len(kinds), 4)
    data += b"".join(struct.pack(">l", each) for each in switches) + bytes([1] * len(switches))
    data += b"".join(_KIND.pack(*kind) for kind in kinds) + b"TST\0"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return moment

"""The numbers of a gain map: with its levels they turn a picture for common screens into one for brighter screens.

```
level ─► (level / 255) ^ (1 / gamma) ─► stops, from `least` to `most` ─► light × 2 ^ stops, between two offsets
```

dream reads them as ISO 21496-1, as `hdrgm` in XMP (Adobe, Android) and as Apple's headroom. It writes the first two,
because a viewer may know only one of them.

(Sources: ISO 21496-1:2025, annex C; Ultra HDR Image Format 1.1; Apple, "Applying Apple HDR effect to your photos".)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

from dream.imaging.xmp import NAMESPACES, packet

__all__ = ["GAIN_PROPERTIES", "ISO_SIGNATURE", "ISO_VERSION", "Gains", "apple_headroom_stops", "apple_levels"]

#: The bytes that begin an APP2 segment of ISO 21496-1, and the version alone, as the base picture has it.
ISO_SIGNATURE = b"urn:iso:std:iso:ts:21496:-1\0"
ISO_VERSION = bytes(4)
_NAMES = "Version GainMapMin GainMapMax Gamma OffsetSDR OffsetHDR HDRCapacityMin HDRCapacityMax BaseRenditionIsHDR"
#: The properties of a gain map's XMP.
GAIN_PROPERTIES = frozenset(f"hdrgm:{name}" for name in _NAMES.split())

#: Flags of ISO 21496-1; the last two are libultrahdr's.
_THREE_CHANNELS, _BASE_COLOURS, _BASE_IS_HDR, _ONE_DENOMINATOR = 0x80, 0x40, 0x04, 0x08
#: Fractions are written in millionths at the finest.
_FINEST = 1_000_000
#: No screen, camera or program has numbers beyond these.
_MOST_STOPS, _MOST_OFFSET, _MOST_GAMMA = 16.0, 1.0, 100.0

#: Numbers for one channel, or for red, green and blue.
Channels = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Gains:
    """The numbers of a gain map; each tuple has one number for all channels, or one for each.

    Parameters:
      least, most: stops of the levels 0 and 255.
      gamma: the exponent of levels.
      offset, hdr_offset: added to the picture's light, and subtracted from the result.
      headroom_from, headroom_to: stops of a screen's headroom at which the map begins to count, and counts in full.
      is_for_base_colours: whether it multiplies the light of the picture's own primaries.
    """

    least: Channels
    most: Channels
    gamma: Channels = (1.0,)
    offset: Channels = (1 / 64,)
    hdr_offset: Channels = (1 / 64,)
    headroom_from: float = 0.0
    headroom_to: float
    is_for_base_colours: bool = True

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
          ValueError: a number has no meaning.
        """
        stops = (*self.least, *self.most, self.headroom_from, self.headroom_to)
        offsets = (*self.offset, *self.hdr_offset)
        widest = max(map(len, self._channels))
        is_right = (
            all(len(channel) in {1, widest} for channel in self._channels)
            and widest in {1, 3}
            and all(abs(each) <= _MOST_STOPS for each in stops)  # False for NaN
            and all(0 <= each <= _MOST_OFFSET for each in offsets)
            and all(1 / _MOST_GAMMA <= each <= _MOST_GAMMA for each in self.gamma)
            and all(low <= high for low, high in zip(self._each(self.least), self._each(self.most), strict=True))
            and 0 <= self.headroom_from < self.headroom_to
        )
        if not is_right:
            raise ValueError(f"a gain map's numbers are out of range: {self!r}")

    @property
    def _channels(self) -> tuple[Channels, ...]:
        return (self.least, self.most, self.gamma, self.offset, self.hdr_offset)

    @property
    def has_three_channels(self) -> bool:
        """Whether red, green and blue have numbers of their own."""
        return any(len(channel) == 3 for channel in self._channels)

    def _each(self, channel: Channels) -> Channels:
        return channel * 3 if len(channel) == 1 and self.has_three_channels else channel

    @classmethod
    def of_headroom(cls, stops: float) -> Gains:
        """The numbers of a map whose levels go from no gain to this headroom, in stops.

        Raises:
          ValueError: there is no headroom.
        """
        return cls(least=(0.0,), most=(stops,), offset=(0.0,), hdr_offset=(0.0,), headroom_to=stops)

    @classmethod
    def of_iso(cls, data: bytes) -> Gains:
        """Read the metadata of ISO 21496-1.

        Raises:
          ValueError: it is incomplete, of a later version, for a base picture in HDR, or out of range.
        """
        try:
            least_version, _, flags = struct.unpack_from(">HHB", data)
            if least_version or flags & _BASE_IS_HDR:
                raise ValueError("a gain map of this version or direction is not supported")
            count = 3 if flags & _THREE_CHANNELS else 1
            headrooms, rows = _fractions(data[5:], count, has_one_denominator=bool(flags & _ONE_DENOMINATOR))
        except (struct.error, ZeroDivisionError) as error:
            raise ValueError(f"the metadata of a gain map is damaged: {error}") from error
        least, most, gamma, offset, hdr_offset = zip(*rows, strict=True)
        return cls(
            least=least,
            most=most,
            gamma=gamma,
            offset=offset,
            hdr_offset=hdr_offset,
            headroom_from=headrooms[0],
            headroom_to=headrooms[1],
            is_for_base_colours=bool(flags & _BASE_COLOURS),
        )

    @classmethod
    def of_xmp(cls, found: dict[str, list[str]]) -> Gains:
        """Read `hdrgm` from the properties of a gain map's XMP.

        Raises:
          ValueError: a needed property is missing, no number or out of range, or the base picture is in HDR.
        """

        def numbers(name: str, default: float | None = None) -> Channels:
            texts = found.get(f"hdrgm:{name}")
            if texts:
                return tuple(float(text) for text in texts)
            if default is None:
                raise ValueError(f"a gain map must have {name}")
            return (default,)

        if found.get("hdrgm:BaseRenditionIsHDR", ["False"]) != ["False"]:
            raise ValueError("a gain map of this direction is not supported")
        return cls(
            least=numbers("GainMapMin", 0.0),
            most=numbers("GainMapMax"),
            gamma=numbers("Gamma", 1.0),
            offset=numbers("OffsetSDR", 1 / 64),
            hdr_offset=numbers("OffsetHDR", 1 / 64),
            headroom_from=numbers("HDRCapacityMin", 0.0)[0],
            headroom_to=numbers("HDRCapacityMax")[0],
        )

    def iso(self) -> bytes:
        """The metadata of ISO 21496-1."""
        flags = _BASE_COLOURS * self.is_for_base_colours | _THREE_CHANNELS * self.has_three_channels
        rows = zip(*map(self._each, self._channels), strict=True)
        numbers = [self.headroom_from, self.headroom_to, *(number for row in rows for number in row)]
        fractions = (Fraction(number).limit_denominator(_FINEST) for number in numbers)
        return struct.pack(">HHB", 0, 0, flags) + b"".join(
            struct.pack(">iI", fraction.numerator, fraction.denominator) for fraction in fractions
        )

    def xmp(self) -> bytes:
        """The packet of a gain map."""
        named = {
            "GainMapMin": self.least,
            "GainMapMax": self.most,
            "Gamma": self.gamma,
            "OffsetSDR": self.offset,
            "OffsetHDR": self.hdr_offset,
            "HDRCapacityMin": (self.headroom_from,),
            "HDRCapacityMax": (self.headroom_to,),
        }
        attributes = [f'hdrgm:{name}="{each[0]:.6f}"' for name, each in named.items() if len(each) == 1]
        lists = [f"<hdrgm:{name}>{_sequence(each)}</hdrgm:{name}>" for name, each in named.items() if len(each) > 1]
        return packet(
            [
                f'<rdf:Description rdf:about="" xmlns:hdrgm="{NAMESPACES["hdrgm"]}" hdrgm:Version="1.0" '
                f'{" ".join(attributes)} hdrgm:BaseRenditionIsHDR="False">{"".join(lists)}</rdf:Description>'
            ]
        )


def _fractions(data: bytes, channels: int, *, has_one_denominator: bool) -> tuple[list[float], list[list[float]]]:
    """Both headrooms, and the five numbers of each channel."""
    signs = "II" + "iiIii" * channels  # no headroom and no gamma is negative
    if has_one_denominator:
        below, *above = struct.unpack_from(f">I{signs}", data)
        numbers = [each / below for each in above]
    else:
        pairs = struct.unpack_from(">" + "".join(f"{sign}I" for sign in signs), data)
        numbers = [above / below for above, below in zip(pairs[::2], pairs[1::2], strict=True)]
    return numbers[:2], [numbers[start : start + 5] for start in range(2, len(numbers), 5)]


def _sequence(numbers: Channels) -> str:
    return f"<rdf:Seq>{''.join(f'<rdf:li>{number:.6f}</rdf:li>' for number in numbers)}</rdf:Seq>"


_APPLE_NOTE = b"Apple iOS\0\0\x01MM"
_SIGNED_RATIONAL = 10
#: Tags of Apple's maker note, by the numbers that Apple's article gives.
_HEADROOM_TAG, _GAIN_TAG = 33, 48


def apple_headroom_stops(note: bytes) -> float:
    """The headroom, in stops, in the maker note of an Apple camera; 0 if it has none.

    Raises:
      ValueError: the note is damaged.
    """
    if not note.startswith(_APPLE_NOTE):
        return 0.0
    try:
        found = _rationals(note, {_HEADROOM_TAG, _GAIN_TAG})
    except (struct.error, ZeroDivisionError) as error:
        raise ValueError(f"the maker note is damaged: {error}") from error
    if _HEADROOM_TAG not in found:
        return 0.0
    gain = found.get(_GAIN_TAG, 0.0)
    if found[_HEADROOM_TAG] < 1.0:
        stops = 1.8 - 20.0 * gain if gain <= 0.01 else 1.601 - 0.101 * gain
    else:
        stops = 3.0 - 70.0 * gain if gain <= 0.01 else 2.303 - 0.303 * gain
    return max(0.0, stops)


def _rationals(note: bytes, wanted: set[int]) -> dict[int, float]:
    """The wanted signed fractions of a maker note, by tag; its offsets count from its beginning."""
    (count,) = struct.unpack_from(">H", note, len(_APPLE_NOTE))
    found = {}
    for entry in range(count):
        tag, kind, _, at = struct.unpack_from(">HHLL", note, len(_APPLE_NOTE) + 2 + 12 * entry)
        if tag in wanted and kind == _SIGNED_RATIONAL:
            above, below = struct.unpack_from(">2l", note, at)
            found[tag] = above / below
    return found


def apple_levels(stops: float) -> list[int]:
    """The levels of `Gains.of_headroom(stops)` for Apple's levels 0 to 255.

    Apple's light is 1 + (headroom − 1) × g, and g is in the curve of BT.709.
    """
    headroom = 2**stops

    def level(apple: int) -> int:
        share = apple / 255
        light = share / 4.5 if share < 0.081 else ((share + 0.099) / 1.099) ** (1 / 0.45)
        return round(255 * math.log2(1 + (headroom - 1) * light) / stops)

    return [level(apple) for apple in range(256)]

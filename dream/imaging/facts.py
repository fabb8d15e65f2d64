"""Facts about a photo (time, place, camera) from its Exif, and from its XMP where Exif does not say.

The facts are for the picture's owner only: the row keeps them, and no processed file has them. Values that make no
sense are left out.

(Sources: Exif 3.0, 4.6.5 and 4.6.6; CIPA DC-010, the same in XMP.)
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeAlias, cast

from dream.imaging.exif import Directory
from dream.imaging.limits import KeptFacts
from dream.imaging.metadata import Metadata, cleaned_text
from dream.messages.pictures import PhotoFacts

__all__ = ["facts_of"]

_EXIF, _GPS = 0x8769, 0x8825
_MAKE, _MODEL = 0x010F, 0x0110
_LENS, _FOCAL_LENGTH, _EXPOSURE, _F_NUMBER = 0xA434, 0x920A, 0x829A, 0x829D
_ISO, _RECOMMENDED_INDEX, _STANDARD_SENSITIVITY = 0x8827, 0x8832, 0x8831
#: This ISO means that the real one has more than 16 bits and is in another entry.
_ISO_OVERFLOW = 65_535
#: Date, its offset, and parts of its second: of the shot, and of its digital picture.
_TIMES = ((0x9003, 0x9011, 0x9291), (0x9004, 0x9012, 0x9292))
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = 1, 2, 3, 4, 5, 6
_GPS_STATUS, _GPS_DATUM = 9, 18
#: Places in other systems are up to a kilometre off; the Japanese systems since 2000 equal WGS 84.
_DATUMS = frozenset({"", "WGS84", "JGD2000", "JGD2011"})
_BELOW_SEA = frozenset({1, 3})

#: The year of the first photo, and the time by which a photo may be ahead of this clock.
_FIRST_YEAR, _AHEAD = 1826, timedelta(days=2)
_LONGEST_NAME = 128
_DATE = re.compile(
    r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d\d:\d\d)?", re.ASCII
)
_DEGREES = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d{1,12})?)(?:,(\d{1,2}(?:\.\d{1,12})?))?([NSEW])", re.ASCII)
_RATIONAL = re.compile(r"(-?\d{1,12}(?:\.\d{1,12})?)(?:/(\d{1,12}))?", re.ASCII)
#: The names of XMP, by fact.
_XMP_TIMES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "exif:DateTimeDigitized", "xmp:CreateDate")
_XMP_TEXTS = {"make": ("tiff:Make",), "model": ("tiff:Model",), "lens": ("exifEX:LensModel", "aux:Lens")}
_XMP_NUMBERS = {
    "focal_length_mm": ("exif:FocalLength",),
    "exposure_s": ("exif:ExposureTime",),
    "f_number": ("exif:FNumber",),
    "iso": ("exifEX:PhotographicSensitivity", "exif:ISOSpeedRatings"),
}
_XMP_PLACE = ("exif:GPSLatitude", "exif:GPSLongitude", "exif:GPSAltitude", "exif:GPSAltitudeRef")
_WANTED = frozenset(
    {*_XMP_TIMES, *_XMP_PLACE, *(name for names in (*_XMP_TEXTS.values(), *_XMP_NUMBERS.values()) for name in names)}
)
#: The values of numbers that make sense.
_RANGES = {"focal_length_mm": (0.1, 20_000), "exposure_s": (1e-9, 1e6), "f_number": (0.1, 1_000), "iso": (1, 1e8)}

Properties: TypeAlias = dict[str, list[str]]


def facts_of(metadata: Metadata, kept: KeptFacts) -> PhotoFacts | None:
    """The facts that are to be kept; None if the file has none of them."""
    if kept == "none":
        return None
    said = metadata.properties(_WANTED)
    exif = metadata.exif.below(_EXIF)
    facts: dict[str, object] = {}
    taken_at = _taken_at(exif, said)
    if taken_at:
        facts["taken_at"] = taken_at
    if kept == "all":
        facts |= _place(metadata.exif.below(_GPS)) or _place_in_xmp(said)
        facts |= _camera(metadata.exif, exif, said)
    return cast("PhotoFacts", facts) if facts else None


# --- when


def _taken_at(exif: Directory, said: Properties) -> str | None:
    for date, offset, parts in _TIMES:
        text, fraction = exif.text(date).strip(), exif.text(parts).strip()
        with_parts = f"{text}.{fraction}" if fraction.isdecimal() and fraction.isascii() else text
        found = _time(f"{with_parts}{exif.text(offset).strip()}") or _time(with_parts) or _time(text)
        if found:
            return found
    return next((found for name in _XMP_TIMES for value in said.get(name, ()) if (found := _time(value))), None)


def _time(text: str) -> str | None:
    """The time in ISO 8601, with its offset from UTC if that is known; None if it makes no sense."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    *date, second, parts, offset = match.groups()
    milliseconds = int((parts or "").ljust(3, "0")[:3])
    try:
        year, month, day, hour, minute = map(int, date)
        zone = _zone(offset) if offset else None
        time = datetime(year, month, day, hour, minute, int(second or 0), 1000 * milliseconds, zone)
    except ValueError:
        return None
    latest = datetime.now(UTC) + _AHEAD
    if time.year < _FIRST_YEAR or time.replace(tzinfo=UTC) > latest:
        return None
    return time.isoformat(timespec="milliseconds" if milliseconds else "seconds")


def _zone(offset: str) -> timezone:
    """The zone of an offset.

    Raises:
      ValueError: no place on earth has it.
    """
    if offset == "Z":
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[4:])
    if minutes > 59 or 60 * hours + minutes > 14 * 60:
        raise ValueError("no offset")
    ahead = timedelta(hours=hours, minutes=minutes)
    return timezone(-ahead if offset[0] == "-" else ahead)


# --- where


def _place(gps: Directory) -> dict[str, float]:
    if gps.text(_GPS_STATUS).strip() == "V":  # the receiver had no position
        return {}
    if re.sub(r"[\W_]", "", gps.text(_GPS_DATUM)).upper() not in _DATUMS:
        return {}
    latitude = _degrees(gps.numbers(_LATITUDE), gps.text(_LATITUDE_REF).strip(), "NS")
    longitude = _degrees(gps.numbers(_LONGITUDE), gps.text(_LONGITUDE_REF).strip(), "EW")
    altitude, is_below = gps.number(_ALTITUDE), gps.number(_ALTITUDE_REF) in _BELOW_SEA
    return _checked_place(latitude, longitude, None if altitude is None else -altitude if is_below else altitude)


def _place_in_xmp(said: Properties) -> dict[str, float]:
    latitude, longitude = (_degrees_in_xmp(said, name) for name in _XMP_PLACE[:2])
    altitude = _first_number(said, (_XMP_PLACE[2],))
    if altitude is not None and _first_number(said, (_XMP_PLACE[3],)) in _BELOW_SEA:
        altitude = -altitude
    return _checked_place(latitude, longitude, altitude)


def _degrees_in_xmp(said: Properties, name: str) -> float | None:
    match = _DEGREES.fullmatch(said.get(name, [""])[0])
    if match is None:
        return None
    *parts, reference = match.groups()
    wanted = "NS" if name.endswith("Latitude") else "EW"
    return _degrees(tuple(float(part) for part in parts if part), reference, wanted)


def _degrees(parts: tuple[float, ...], reference: str, references: str) -> float | None:
    """Degrees, north and east positive, of degrees, minutes and seconds; None if they make no sense."""
    if not 1 <= len(parts) <= 3 or reference not in set(references) or min(parts) < 0 or max(parts[1:], default=0) > 60:
        return None
    degrees = sum(part / scale for part, scale in zip(parts, (1, 60, 3600), strict=False))
    return -degrees if reference == references[1] else degrees


def _checked_place(latitude: float | None, longitude: float | None, altitude: float | None) -> dict[str, float]:
    """The place; empty if it is none, or 0° 0°, which is written where nothing is known."""
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return {}
    if not round(latitude, 6) and not round(longitude, 6):
        return {}
    place = {"latitude": round(latitude, 6), "longitude": round(longitude, 6)}
    if altitude is not None and -12_000 <= altitude <= 1_000_000:
        place["altitude_m"] = round(altitude, 1)
    return place


# --- with what


def _camera(first: Directory, exif: Directory, said: Properties) -> dict[str, object]:
    texts = {"make": first.text(_MAKE), "model": first.text(_MODEL), "lens": exif.text(_LENS)}
    numbers = {
        "focal_length_mm": exif.number(_FOCAL_LENGTH),
        "exposure_s": exif.number(_EXPOSURE),
        "f_number": exif.number(_F_NUMBER),
        "iso": _iso(exif),
    }
    found: dict[str, object] = {}
    for name, text in texts.items():
        others = (value for each in _XMP_TEXTS[name] for value in said.get(each, ()))
        named = next((clean for value in (text, *others) if (clean := cleaned_text(value, _LONGEST_NAME))), None)
        if named:
            found[name] = named
    for name, value in numbers.items():
        number = _in_range(name, value)
        if number is None:
            number = _in_range(name, _first_number(said, _XMP_NUMBERS[name]))
        if number is not None:
            found[name] = int(number) if name == "iso" else float(f"{number:.6g}")
    return found


def _iso(exif: Directory) -> float | None:
    values = exif.numbers(_ISO)  # some cameras write two equal values
    if values and values[0] != _ISO_OVERFLOW:
        return values[0]
    larger = (exif.number(_RECOMMENDED_INDEX), exif.number(_STANDARD_SENSITIVITY))
    return next((value for value in larger if value), values[0] if values else None)


def _in_range(name: str, number: float | None) -> float | None:
    least, most = _RANGES[name]
    return number if number is not None and least <= number <= most else None


def _first_number(said: Properties, names: tuple[str, ...]) -> float | None:
    for name in names:
        match = _RATIONAL.fullmatch(said.get(name, [""])[0])
        if match is not None and match[2] != "0" and float(match[2] or 1):
            number = float(match[1]) / float(match[2] or 1)
            return number if math.isfinite(number) else None
    return None

"""ICC profiles that the tests build, and what they mean, worked out without a colour library.

Sources: ICC.1:2010, clauses 7 to 10; the primaries of each space as adapted to D50; sRGB's curve from IEC 61966-2-1.
"""

from __future__ import annotations

import struct
from itertools import product

__all__ = ["ADOBE_RGB", "DISPLAY_P3", "Colour", "cmyk_profile", "grey_profile", "lab_to_srgb", "rgb_profile", "to_srgb"]

Colour = tuple[float, float, float]
#: The columns red, green and blue of a space's matrix to XYZ, under D50.
Primaries = tuple[Colour, Colour, Colour]

ADOBE_RGB: Primaries = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3: Primaries = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
_XYZ_TO_LINEAR_SRGB = (
    (3.1338561, -1.6168667, -0.4906146),
    (-0.9787684, 1.9161415, 0.0334540),
    (0.0719453, -0.2289914, 1.4052427),
)
_D50: Colour = (0.9642, 1.0, 0.8249)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(colour: Colour) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, colour))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of these tags, with those that every profile has."""
    text = b"Made\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": _xyz(_D50), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, _D50))
    return header.ljust(128, b"\0") + table + body


def rgb_profile(primaries: Primaries, gamma: float = 2.2) -> bytes:
    """A profile of three primaries and one curve."""
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, primaries), strict=True))
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"mntr", b"RGB ", b"XYZ ", columns | curves)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey with one curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(press: dict[tuple[int, ...], Colour]) -> bytes:
    """A press: the CIELAB colours (D50) of combinations of full inks, black for those not named."""
    nodes = b"".join(_lab_8(press.get(inks, (0.0, 0.0, 0.0))) for inks in product((0, 1), repeat=4))
    straight = bytes(range(256))
    identity = b"".join(_fixed(float(row == column)) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + straight * 4 + nodes + straight * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _lab_8(colour: Colour) -> bytes:
    lightness, a, b = colour
    return bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))


def to_srgb(colour: tuple[int, int, int], primaries: Primaries, gamma: float = 2.2) -> tuple[int, ...]:
    """Numbers of such a space in sRGB, cut where sRGB has no such colour."""
    light = [(value / 255) ** gamma for value in colour]
    return _xyz_to_srgb(tuple(sum(light[i] * primaries[i][axis] for i in range(3)) for axis in range(3)))  # type: ignore[arg-type]


def lab_to_srgb(colour: Colour) -> tuple[int, ...]:
    """A CIELAB colour (D50) in sRGB."""
    lightness, a, b = colour
    y = (lightness + 16) / 116
    axes = (y + a / 500, y, y - b / 200)
    cubed = [axis**3 if axis > 6 / 29 else (axis - 16 / 116) * 3 * (6 / 29) ** 2 for axis in axes]
    return _xyz_to_srgb(tuple(value * white for value, white in zip(cubed, _D50, strict=True)))  # type: ignore[arg-type]


def _xyz_to_srgb(colour: Colour) -> tuple[int, ...]:
    linear = (sum(factor * value for factor, value in zip(row, colour, strict=True)) for row in _XYZ_TO_LINEAR_SRGB)
    return tuple(round(255 * _srgb_curve(min(1.0, max(0.0, value)))) for value in linear)


def _srgb_curve(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055

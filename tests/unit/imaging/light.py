"""Conversion of colour numbers to sRGB, computed from the formulas of the specifications in plain Python.

Sources: ITU-T H.273, tables 2 and 3; ITU-R BT.2100, tables 4 and 5; IEC 61966-2-1; SMPTE RP 177 for the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Vector = tuple[float, float, float]
#: White and red, green and blue, x and y of each, by code point.
PRIMARIES = {
    1: ((0.3127, 0.3290), (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    4: ((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: ((0.3127, 0.3290), (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: ((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: ((0.310, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: ((0.3127, 0.3290), (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: ((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.3127, 0.3290), (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}


def _bt709(v: float) -> float:
    return v / 4.5 if v < 4.5 * 0.018 else ((v + 0.099) / 1.099) ** (1 / 0.45)


def _srgb(v: float) -> float:
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


TRANSFERS: dict[int, Callable[[float], float]] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _bt709),
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    7: lambda v: v / 4 if v < 4 * 0.0228 else ((v + 0.1115) / 1.1115) ** (1 / 0.45),
    8: lambda v: v,
    9: lambda v: 10 ** (2 * (v - 1)) if v > 0 else 0.0,
    10: lambda v: 10 ** (2.5 * (v - 1)) if v > 0 else 0.0,
    13: _srgb,
    17: lambda v: 52.37 * v**2.6 / 48,
}


def pq_level(nits: float, bits: int = 8) -> int:
    """The level of a light in PQ."""
    y = (nits / 10_000) ** (2610 / 16_384)
    signal: float = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    return round(signal * (2**bits - 1))


def hlg_level(nits: float, bits: int = 8) -> int:
    """The level of a grey that has this light on a display of 1,000 cd/m²."""
    scene = (nits / 1000) ** (1 / 1.2)
    a, b = 0.17883277, 0.28466892
    signal = math.sqrt(3 * scene) if scene <= 1 / 12 else a * math.log(12 * scene - b) + 0.55991073
    return round(signal * (2**bits - 1))


def in_srgb(
    colour: tuple[int, int, int], primaries: int = 1, transfer: int | float = 13, narrow: bool = False
) -> tuple[int, ...]:
    """The same colour in sRGB, cut where sRGB has no such colour.

    Parameters:
      transfer: a code point, or as a float an exponent.
    """
    signals = [max(0.0, (level - 16) / 219) if narrow else level / 255 for level in colour]
    if isinstance(transfer, float):
        light = [signal**transfer for signal in signals]
    else:
        light = [TRANSFERS[transfer](signal) for signal in signals]
    xyz = _times(_matrix(primaries), light)
    xyz = _adapted(xyz, _white(primaries))
    out = _times(_inverse(_matrix(1)), xyz)
    return tuple(round(255 * _srgb_level(min(1.0, max(0.0, value)))) for value in out)


def _srgb_level(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def _xyz(x: float, y: float) -> list[float]:
    return [x, y, 1 - x - y]


def _white(primaries: int) -> list[float]:
    x, y = PRIMARIES[primaries][0]
    return [x / y, 1.0, (1 - x - y) / y]


def _matrix(primaries: int) -> list[list[float]]:
    columns = [_xyz(*place) for place in PRIMARIES[primaries][1:]]
    rows = [list(row) for row in zip(*columns, strict=True)]
    scales = _times(_inverse(rows), _white(primaries))
    return [[value * scale for value, scale in zip(row, scales, strict=True)] for row in rows]


def _adapted(xyz: list[float], white: list[float]) -> list[float]:
    cones = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    seen, seen_white, wanted = (_times(cones, value) for value in (xyz, white, _white(1)))
    return _times(_inverse(cones), [a * to / of for a, of, to in zip(seen, seen_white, wanted, strict=True)])


def _times(rows: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(factor * value for factor, value in zip(row, vector, strict=True)) for row in rows]


def _inverse(m: list[list[float]]) -> list[list[float]]:
    def minor(row: int, column: int) -> float:
        (a, b), (c, d) = ([m[y][x] for x in range(3) if x != column] for y in range(3) if y != row)
        return (-1) ** (row + column) * (a * d - b * c)

    whole = sum(m[0][x] * minor(0, x) for x in range(3))
    return [[minor(x, y) / whole for x in range(3)] for y in range(3)]

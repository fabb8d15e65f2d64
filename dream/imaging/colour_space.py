"""Colour spaces that are named by numbers, and the conversion of each to sRGB, which tone-maps PQ and HLG.

```
level ─ transfer ─► light ─ (HDR: tone curve) ─► light ─ matrix ─► light of sRGB's primaries ─ sRGB's curve ─► level
```

Sources: ITU-T H.273 (code points, primaries, transfer functions), BT.2100 (PQ, HLG and its display), BT.2408 (203 cd/m²
is HDR's reference white), IEC 61966-2-1 (sRGB), PNG 3rd edition (gAMA, cHRM); Lindbloom for matrices and the Bradford
adaptation. Chromium decides if they say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from PIL import Image

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.float32]

__all__ = ["SRGB", "Chromaticities", "ColourSpace", "by_chunks", "by_code_points", "convert"]


class Chromaticities(NamedTuple):
    """White and the three primaries of a colour space: CIE 1931 x and y of each."""

    white_x: float
    white_y: float
    red_x: float
    red_y: float
    green_x: float
    green_y: float
    blue_x: float
    blue_y: float


class ColourSpace(NamedTuple):
    """The meaning of an RGB or grey picture's numbers.

    Parameters:
      primaries: its white and primaries.
      transfer: the name of a transfer function, or an exponent by which levels become light.
      is_narrow: black is 16 and white 235, as in video.
    """

    primaries: Chromaticities
    transfer: str | float
    is_narrow: bool = False

    @property
    def is_hdr(self) -> bool:
        return self.transfer in _PEAKS


_D65, _C, _DCI, _E = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
_BT709 = Chromaticities(*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_SMPTE170M = Chromaticities(*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_BT2020 = Chromaticities(*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
#: By H.273, table 2; 2 is "unspecified".
_PRIMARIES = {
    1: _BT709,
    2: _BT709,
    4: Chromaticities(*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: Chromaticities(*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE170M,
    7: _SMPTE170M,
    8: Chromaticities(*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: _BT2020,
    10: Chromaticities(*_E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: Chromaticities(*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: Chromaticities(*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: Chromaticities(*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
#: By H.273, table 3; 2 is "unspecified".
_TRANSFERS: dict[int, str | float] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), "bt709"),
    **dict.fromkeys((2, 13), "srgb"),
    4: 2.2,
    5: 2.8,
    7: "smpte240m",
    8: 1.0,
    9: "log100",
    10: "log316",
    16: "pq",
    17: "smpte428",
    18: "hlg",
}
SRGB = ColourSpace(_BT709, "srgb")

#: The brightest light of a transfer, in cd/m².
_PEAKS: dict[str | float, float] = {"pq": 10_000.0, "hlg": 1_000.0}
_REFERENCE_WHITE = 203.0
#: HLG's system gamma, for a display of 1,000 cd/m².
_HLG_GAMMA = 1.2
#: The tone curve: light is multiplied by the first number up to this share of reference white, and bends to 1 above.
_TONE_SLOPE, _TONE_KNEE = 0.95, 0.8

#: gAMA and cHRM beyond these are ignored.
_GAMMAS = (0.1, 5.0)
_LEAST_AREA = 0.005
#: The gamma that means sRGB's curve if the file has no other statement, and the largest difference from it.
_SRGB_GAMMA, _SAME_GAMMA = 0.45455, 0.005

#: Levels by which a colour may differ and still count as equal.
_SAME_LEVELS = 1
#: The number of spaces whose tables are kept for the next picture.
_KEPT_SPACES = 32
#: The number of pixels to convert at once, with about 50 bytes each.
_PIXELS_AT_ONCE = 2**18


def by_code_points(primaries: int, transfer: int, *, is_narrow: bool = False) -> ColourSpace | None:
    """The space of these code points (H.273); None if one is reserved.

    Unspecified ones are sRGB's, but unspecified primaries of PQ and HLG are BT.2100's.
    """
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    space = ColourSpace(_PRIMARIES[primaries], _TRANSFERS[transfer], is_narrow)
    return space._replace(primaries=_BT2020) if primaries == 2 and space.is_hdr else space


def by_chunks(gamma: float | None, primaries: Chromaticities | None) -> ColourSpace | None:
    """The space of gAMA and cHRM, in the units of the specification; None if they are missing or impossible."""
    if gamma is not None and not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        gamma = None
    if primaries is not None and not _are_possible(primaries):
        primaries = None
    if primaries is None and (gamma is None or abs(gamma - _SRGB_GAMMA) <= _SAME_GAMMA):
        return None
    return ColourSpace(primaries or _BT709, "srgb" if gamma is None else 1 / gamma)


def _are_possible(at: Chromaticities) -> bool:
    """Whether the primaries span a triangle with white in it."""

    def area(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
        return ((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2

    red, green, blue, white = at[2:4], at[4:6], at[6:8], at[:2]
    whole = area(*red, *green, *blue)
    parts = (area(*white, *green, *blue), area(*red, *white, *blue), area(*red, *green, *white))
    is_within = all(part / whole > 0 for part in parts) if abs(whole) >= _LEAST_AREA else False
    return is_within and at.white_y > 0 and all(-1 <= value <= 2 for value in at)


def convert(image: Image.Image, space: ColourSpace) -> Image.Image:
    """Convert a picture in mode L or RGB from the space to sRGB; it is returned as it is where both are the same."""
    if space == SRGB or _is_srgb(space):
        return image
    if image.mode == "L":
        return image.point(_grey_levels(space))
    return _converted(image, space)


@lru_cache(_KEPT_SPACES)
def _is_srgb(space: ColourSpace) -> bool:
    """Whether converting a grid of colours from the space to sRGB changes next to nothing."""
    import numpy

    levels = numpy.arange(0, 256, 15, dtype=numpy.uint8)
    grid = numpy.stack(numpy.meshgrid(levels, levels, levels), axis=-1)
    change = _to_srgb(grid, space).astype(int) - grid
    return int(abs(change).max()) <= _SAME_LEVELS


@lru_cache(_KEPT_SPACES)
def _grey_levels(space: ColourSpace) -> list[int]:
    import numpy

    levels = numpy.arange(256, dtype=numpy.uint8)
    greys = _to_srgb(numpy.stack([levels] * 3, axis=-1), space)
    return cast("list[int]", greys[:, 1].tolist())


def _converted(image: Image.Image, space: ColourSpace) -> Image.Image:
    """A picture in mode RGB, converted in strips."""
    import numpy

    out = Image.new("RGB", image.size)
    height = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(image.height, top + height)))
        out.paste(Image.fromarray(_to_srgb(numpy.asarray(strip), space)), (0, top))
    return out


def _to_srgb(levels: NDArray[numpy.uint8], space: ColourSpace) -> NDArray[numpy.uint8]:
    """Convert levels of red, green and blue, which lie along the last axis."""
    import numpy

    light = _light(space)[levels]
    if space.transfer == "hlg":
        scene = light @ numpy.asarray(_to_xyz(space.primaries)[1], dtype=numpy.float32)
        light *= (scene ** (_HLG_GAMMA - 1))[..., None]
    if space.is_hdr:
        peak = _PEAKS[space.transfer] / _REFERENCE_WHITE
        light *= numpy.float32(peak)
        brightest = numpy.maximum(light.max(axis=-1, keepdims=True), numpy.float32(1e-6))
        light *= _tone(brightest, peak) / brightest
    light = light @ _matrix(space.primaries).T
    places = numpy.clip(light * 65_535 + 0.5, 0, 65_535).astype(numpy.uint16)
    return cast("NDArray[numpy.uint8]", _levels()[places])


def _tone(light: Numbers, peak: float) -> Numbers:
    """The tone curve, from light in reference whites to shares of SDR's white: straight, then bent so that peak is 1.

    Above the knee it is E. Reinhard's curve with a white point (2002), which leaves it at the knee's slope. Reference
    white comes out at 87%.
    """
    import numpy

    knee = _TONE_SLOPE * _TONE_KNEE
    steepness = _TONE_SLOPE / (1 - knee)
    above = numpy.maximum(light - _TONE_KNEE, 0) * steepness
    white = (peak - _TONE_KNEE) * steepness
    bent = knee + (1 - knee) * above * (1 + above / white**2) / (1 + above)
    return numpy.where(light <= _TONE_KNEE, light * _TONE_SLOPE, bent).astype(numpy.float32)


@lru_cache(_KEPT_SPACES)
def _light(space: ColourSpace) -> Numbers:
    """The light of each level, where white, or PQ's and HLG's peak, is 1."""
    import numpy

    signal = numpy.arange(256) / 255
    if space.is_narrow:
        signal = numpy.clip((signal * 255 - 16) / 219, 0, 1)
    light = _CURVES[space.transfer](signal) if isinstance(space.transfer, str) else signal**space.transfer
    return cast("Numbers", light.astype(numpy.float32))


@lru_cache(1)
def _levels() -> NDArray[numpy.uint8]:
    """sRGB's level of each 65,535th of light."""
    import numpy

    light = numpy.arange(65_536) / 65_535
    curve = numpy.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * curve + 0.5).astype(numpy.uint8)


def _srgb_light(signal: Any) -> Any:
    return _pieces(signal, 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _bt709_light(signal: Any) -> Any:
    return _pieces(signal, 0.081242858, signal / 4.5, ((signal + 0.099296827) / 1.099296827) ** (1 / 0.45))


def _smpte240m_light(signal: Any) -> Any:
    return _pieces(signal, 0.091286342, signal / 4, ((signal + 0.111572196) / 1.111572196) ** (1 / 0.45))


def _hlg_light(signal: Any) -> Any:
    import numpy

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return _pieces(signal, 0.5, signal**2 / 3, (numpy.exp((signal - c) / a) + b) / 12)


def _pq_light(signal: Any) -> Any:
    import numpy

    m1, m2, c1, c2, c3 = 2610 / 16_384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return (numpy.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _log_light(decades: float) -> Callable[[Any], Any]:
    def light(signal: Any) -> Any:
        return _pieces(signal, 0, 0 * signal, 10 ** (decades * (signal - 1)))

    return light


def _pieces(signal: Any, up_to: float, low: Any, high: Any) -> Any:
    import numpy

    return numpy.where(signal <= up_to, low, high)


#: From signals to light, of arrays of numbers from 0 to 1.
_CURVES: dict[str, Callable[[Any], Any]] = {
    "srgb": _srgb_light,
    "bt709": _bt709_light,
    "smpte240m": _smpte240m_light,
    "smpte428": lambda signal: 52.37 / 48 * signal**2.6,
    "log100": _log_light(2.0),
    "log316": _log_light(2.5),
    "pq": _pq_light,
    "hlg": _hlg_light,
}


@lru_cache(_KEPT_SPACES)
def _matrix(primaries: Chromaticities) -> Numbers:
    """From light in these primaries to light in sRGB's, white to white."""
    import numpy

    to_xyz, srgb_to_xyz = _to_xyz(primaries), _to_xyz(_BT709)
    adapt = _adaptation(to_xyz.sum(axis=1), srgb_to_xyz.sum(axis=1))
    return cast("Numbers", (numpy.linalg.inv(srgb_to_xyz) @ adapt @ to_xyz).astype(numpy.float32))


def _to_xyz(at: Chromaticities) -> NDArray[numpy.float64]:
    """From light in these primaries to CIE XYZ, where white has a Y of 1."""
    import numpy

    def xyz(x: float, y: float) -> list[float]:
        return [x, y, 1 - x - y]

    columns = numpy.array([xyz(*at[2:4]), xyz(*at[4:6]), xyz(*at[6:8])]).T
    white = numpy.array(xyz(*at[:2])) / at.white_y
    return cast("NDArray[numpy.float64]", columns * numpy.linalg.solve(columns, white))


def _adaptation(white: NDArray[numpy.float64], to: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The Bradford adaptation from one white to another, both in XYZ."""
    import numpy

    cones = numpy.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return cast("NDArray[numpy.float64]", numpy.linalg.inv(cones) @ numpy.diag((cones @ to) / (cones @ white)) @ cones)

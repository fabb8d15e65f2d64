"""The search for the best file within a budget, with encoders whose files grow by a known law."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from dream.errors import ImageRejected
from dream.imaging.budget import Bounds, Grade, Qualities, search

QUALITIES = Qualities(highest=90, lowest=80, lowest_share=0.58)
#: Bytes for each pixel at quality 90.
DENSE = 1.3

Encoder = Callable[[Path, Grade], None]


def encoder(seen: list[Grade], edge_exponent: float, quality_growth: float) -> Encoder:
    """Writes as many bytes as pixels and quality make; keeps what it was asked for in `seen`."""

    def save(path: Path, grade: Grade) -> None:
        seen.append(grade)
        edge = math.sqrt(grade.size[0] * grade.size[1])
        size_bytes = DENSE * 2000 ** (2 - edge_exponent) * edge**edge_exponent * quality_growth ** (grade.quality - 90)
        path.write_bytes(bytes(int(size_bytes)))

    return save


def run(folder: Path, max_bytes: int, encode: Encoder, floor_px: float = 1920) -> int:
    bounds = Bounds((2400, 1800), floor_px, QUALITIES, max_bytes)
    found = search(bounds, encode, folder / "target")
    assert (folder / "target").stat().st_size == found.size_bytes <= max_bytes
    assert [path.name for path in folder.iterdir()] == ["target"]
    return found.size_bytes


@pytest.mark.parametrize("growth", [1.03, 1.055, 1.09])
@pytest.mark.parametrize("exponent", [1.4, 1.75, 2.0])
@pytest.mark.parametrize("share", [0.97, 0.8, 0.6, 0.4, 0.1, 0.01])
def test_it_is_found_in_few_tries(tmp_path: Path, share: float, exponent: float, growth: float) -> None:
    """Files are filled to 85% at least, by three tries mostly, and up to six far from the law that is expected."""
    seen: list[Grade] = []
    encode = encoder(seen, exponent, growth)
    encode(tmp_path / "target", Grade(90, (2400, 1800)))
    whole = (tmp_path / "target").stat().st_size
    seen.clear()
    assert run(tmp_path, int(whole * share), encode) >= 0.85 * int(whole * share)
    is_near = share >= 0.4 and exponent == 1.75 and growth == 1.055
    assert len(seen) <= (3 if is_near else 6)


def test_what_fits_is_written_once(tmp_path: Path) -> None:
    seen: list[Grade] = []
    run(tmp_path, 10**8, encoder(seen, 1.75, 1.05))
    assert seen == [Grade(90, (2400, 1800))]


def test_pixels_give_way_first_then_quality_then_pixels(tmp_path: Path) -> None:
    last: list[Grade] = []
    for share in (0.75, 0.5, 0.2):
        seen: list[Grade] = []
        run(tmp_path, int(share * DENSE * 2400 * 1800), encoder(seen, 2.0, 1.055))
        last.append(seen[-1])
    assert last[0].quality == 90
    assert 1920 <= last[0].size[0] < 2400
    assert last[1].size[0] == 1920
    assert 80 <= last[1].quality < 90
    assert last[2].quality == 80
    assert last[2].size[0] < 1920


def test_a_small_picture_keeps_its_pixels_while_quality_can_give_way(tmp_path: Path) -> None:
    seen: list[Grade] = []
    run(tmp_path, int(0.8 * DENSE * 2400 * 1800), encoder(seen, 2.0, 1.055), floor_px=3000)
    assert seen[-1].size == (2400, 1800)
    assert 80 <= seen[-1].quality < 90


def test_a_budget_below_any_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageRejected, match="cannot be stored in 10 bytes"):
        run(tmp_path, 10, lambda path, _rung: path.write_bytes(bytes(100)) and None)
    assert not list(tmp_path.iterdir())

"""libvips, which has Google's libultrahdr, reads what dream writes: an independent reader of gain maps.

It comes with the benchmarks' packages (`make .venv/bench.stamp`); without them these tests are skipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from imaging_pictures import run
from PIL.JpegImagePlugin import JpegImageFile

from tests import gain_maps
from tests.gain_maps import Numbers

pyvips = pytest.importorskip("pyvips", exc_type=ImportError)

NUMBERS = {
    "usual": Numbers(),
    "with gamma": Numbers(gamma=0.7, most=3.2, headroom_to=3.2),
    "three channels": Numbers(least=(0.0, 0.1, -0.2), most=(2.0, 1.5, 1.0), gamma=(1.0, 0.8, 1.2)),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("form", ["ultra", "iso"])
def test_libvips_finds_the_map_and_renders_the_light_of_the_upload(tmp_path: Path, name: str, form: str) -> None:
    numbers = NUMBERS[name]
    levels = gain_maps.map_picture(mode="RGB" if name == "three channels" else "L")
    photo = gain_maps.photo(numbers, form=form, levels=levels)
    run(tmp_path, photo.file(), max_edge_px=1200)
    loaded = pyvips.Image.uhdrload(str(tmp_path / "target"))
    assert loaded.get("gainmap-hdr-capacity-max") == pytest.approx(2**numbers.headroom_to, rel=1e-4)
    most = [2**each for each in gain_maps.three(numbers.most)]
    assert loaded.get("gainmap-max-content-boost") == pytest.approx(most, rel=1e-4)
    assert loaded.get("gainmap-gamma") == pytest.approx(list(gain_maps.three(numbers.gamma)))
    if name == "three channels":
        return  # libvips 8.18 puts sRGB's curve on such levels; later releases do not
    found = loaded.uhdr2scRGB().numpy()
    (tmp_path / "base.jpg").write_bytes(photo.base)
    (tmp_path / "map.jpg").write_bytes(photo.gain_map)
    expected = gain_maps.rendered(JpegImageFile(tmp_path / "base.jpg"), JpegImageFile(tmp_path / "map.jpg"), numbers)
    expected = gain_maps.reduced(expected, (found.shape[1], found.shape[0]))
    error = np.abs(found - expected) / (expected + 0.05)
    assert error.mean() < 0.015
    assert np.percentile(error, 99.9) < 0.1

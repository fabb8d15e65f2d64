"""The pictures that dream draws itself are what the documentation says of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.ExifTags import IFD, Base

from dream.imaging import Limits, process_file
from dream.stack.samples import draw


def test_the_samples_are_a_photo_a_turned_phone_photo_and_a_transparent_logo(tmp_path: Path) -> None:
    landscape, portrait, logo = draw(tmp_path)
    assert [path.name for path in (landscape, portrait, logo)] == ["landscape.jpg", "portrait-rotated.jpg", "logo.png"]
    with Image.open(landscape) as camera:
        assert camera.size == (4000, 3000)
    assert 1.5e6 < landscape.stat().st_size < 6e6
    with Image.open(portrait) as phone:
        assert phone.size == (3264, 2448)
        assert phone.getexif()[Base.Orientation] == 6
        assert phone.getexif().get_ifd(IFD.GPSInfo)
    processed = process_file(portrait, tmp_path / "portrait", Limits())
    assert processed.height_px > processed.width_px
    with Image.open(logo) as picture:
        assert picture.getchannel("A").getextrema() == (0, 255)

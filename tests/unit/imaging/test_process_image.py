"""`process_image(image_data, filename, max_size)`, which callers of the old system use."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from imaging_pictures import encoded, noise, quarters
from PIL import Image

from dream.errors import ImageRejected, InvalidArguments
from dream.imaging import Limits, process_image
from dream.settings import Settings


def test_it_returns_the_bytes_of_a_picture() -> None:
    out = process_image(encoded(quarters(), "PNG"), "holiday.png")
    assert isinstance(out, bytes)
    assert Image.open(io.BytesIO(out)).format == "WEBP"  # a drawing
    assert Image.open(io.BytesIO(process_image(encoded(noise(300, 200), "PNG"), "noise.png"))).format == "JPEG"


def test_it_meets_max_size_which_is_a_mebibyte_by_default() -> None:
    data = encoded(noise(1600, 1000), "PNG", compress_level=1)
    assert len(process_image(data, "noise.png")) <= 1_048_576
    assert len(process_image(data, "noise.png", 50_000)) <= 50_000
    assert len(process_image(data, filename="noise.png", max_size=5_000)) <= 5_000


def test_it_raises_on_a_bad_picture() -> None:
    """ImageRejected is a ValueError too, which older callers catch."""
    for bad in (b"", b"no picture", encoded(quarters(), "JPEG")[:300]):
        with pytest.raises(ImageRejected):
            process_image(bad, "bad.jpg")
    assert issubclass(ImageRejected, ValueError)


@pytest.mark.parametrize(
    "arguments",
    [("text", "a.jpg"), (None, "a.jpg"), (b"", None), (b"", "a.jpg", "big"), (b"", "a.jpg", 0), (b"", "a.jpg", True)],
)
def test_it_refuses_arguments_of_wrong_types(arguments: tuple[object, ...]) -> None:
    with pytest.raises(InvalidArguments):
        process_image(*arguments)  # type: ignore[arg-type]


def test_importing_it_does_not_import_pillow_or_the_pool() -> None:
    code = "import sys, dream.imaging; print(sorted({'PIL', 'pebble'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_limits_and_settings_have_the_same_defaults() -> None:
    assert Limits.of(Settings()) == Limits()


def test_what_is_decoded_fits_into_a_child() -> None:
    """Refused by its header, a picture is not tried again; out of memory it would be."""
    assert Limits.of(Settings(child_memory_bytes=2**30)).max_decoding_bytes == 2**29
    assert Limits.of(Settings(max_decoding_bytes=10**8)).max_decoding_bytes == 10**8


def test_limits_come_from_settings() -> None:
    settings = Settings(max_image_bytes=1, max_edge_px=20, max_jpeg_pixels=3, max_pixels=4, max_upload_bytes=5)
    limits = Limits.of(settings)
    assert (limits.max_bytes, limits.max_edge_px, limits.max_source_bytes) == (1, 20, 5)
    assert (limits.max_jpeg_pixels, limits.max_pixels) == (3, 4)

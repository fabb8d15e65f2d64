"""Formats of files by their content, and formats of results by `DREAM_OUTPUT_FORMAT`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from imaging_pictures import BLUE, GREEN, RED, encoded, heic, is_near, noise, pixel, quarters, run
from PIL import Image
from pillow_heif import HeifFile

from dream.errors import ImageRejected
from dream.imaging import Limits, OutputFormat, process_file
from dream.settings import Settings


def test_heic_goes_in(tmp_path: Path) -> None:
    processed, out = run(tmp_path, heic(noise(160, 96)), output_format="jpeg")
    assert (processed.content_type, out.size) == ("image/jpeg", (160, 96))
    _, out = run(tmp_path, heic(quarters()))
    assert is_near(pixel(out, 0.1, 0.1), RED)
    assert b"PRIVATE" not in (tmp_path / "target").read_bytes()


def test_heic_is_turned_upright(tmp_path: Path) -> None:
    _, out = run(tmp_path, heic(quarters(), orientation=6))
    assert out.size == (96, 160)
    assert is_near(pixel(out, 0.9, 0.1), RED)
    assert is_near(pixel(out, 0.1, 0.1), BLUE)


def test_transparent_heic_becomes_webp(tmp_path: Path) -> None:
    picture = quarters().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 80, 48))
    processed, out = run(tmp_path, heic(picture))
    assert processed.content_type == "image/webp"
    assert pixel(out, 0.1, 0.1)[3] < 20
    assert is_near(pixel(out, 0.9, 0.1), (*GREEN, 255))


def test_of_a_heic_of_several_pictures_the_primary_is_taken(tmp_path: Path) -> None:
    several = HeifFile()
    several.add_from_pillow(Image.new("RGB", (64, 48), RED))
    several.add_from_pillow(quarters())
    out = io.BytesIO()
    several.save(out, quality=90, primary_index=1)
    _, picture = run(tmp_path, out.getvalue())
    assert picture.size == (160, 96)


def test_of_a_jpeg_of_several_pictures_the_first_is_taken_whole(tmp_path: Path) -> None:
    """Kept as it is, or reduced; a preview follows it."""
    data = encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48), RED)])
    for max_edge_px, size in ((2560, (160, 96)), (80, (80, 48))):
        _, picture = run(tmp_path, data, max_edge_px=max_edge_px)
        assert picture.size == size
        assert is_near(pixel(picture, 0.9, 0.1), GREEN)


def test_truncated_heic_is_refused(tmp_path: Path) -> None:
    data = heic(noise(200, 200))
    for share in (0.1, 0.5, 0.95):
        source = tmp_path / "source"
        source.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageRejected):
            process_file(source, tmp_path / "target", Limits())


def test_without_the_extra_heic_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """In a process where pillow-heif cannot be imported."""
    (tmp_path / "photo").write_bytes(heic(quarters()))
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from pathlib import Path; from dream.imaging import Limits, process_file\n"
        "process_file(Path('photo'), Path('out'), Limits())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "the picture is a HEIC, which is accepted only where dream-pictures[heif] is installed; save it as JPEG"
    )


def test_without_its_decoder_avif_is_neither_offered_nor_accepted() -> None:
    """In a process whose Pillow has no AVIF."""
    code = (
        "import sys; sys.modules['PIL._avif'] = None\n"
        "from dream.imaging.formats import ACCEPTED\n"
        "from dream.imaging.media_types import picker_types, refusal_of_type\n"
        "print('AVIF' in ACCEPTED, 'image/avif' in picker_types(), refusal_of_type('image/avif'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    offered, picked, refusal = done.stdout.split(maxsplit=2)
    assert (offered, picked) == ("False", "False")
    assert refusal.startswith("the file is not a picture of an accepted format")


@pytest.mark.parametrize(
    ("wanted", "opaque", "transparent"),
    [
        ("auto", "image/jpeg", "image/webp"),
        ("jpeg", "image/jpeg", "image/jpeg"),
        ("webp", "image/webp", "image/webp"),
        ("avif", "image/avif", "image/avif"),
    ],
)
def test_what_comes_out(tmp_path: Path, wanted: OutputFormat, opaque: str, transparent: str) -> None:
    processed, out = run(tmp_path, encoded(quarters(), "JPEG"), output_format=wanted)
    assert processed.content_type == opaque == Image.MIME[out.format or ""]
    assert is_near(pixel(out, 0.9, 0.1), GREEN)
    picture = quarters().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 80, 48))
    processed, out = run(tmp_path, encoded(picture, "PNG"), output_format=wanted)
    assert processed.content_type == transparent == Image.MIME[out.format or ""]
    if transparent == "image/jpeg":
        assert is_near(pixel(out, 0.1, 0.1), (255, 255, 255))  # on white
    else:
        assert pixel(out, 0.1, 0.1)[3] < 20
    assert is_near(pixel(out, 0.9, 0.1), (*GREEN, 255))


@pytest.mark.parametrize("wanted", ["webp", "avif"])
def test_every_format_meets_the_budget(tmp_path: Path, wanted: OutputFormat) -> None:
    processed, _ = run(tmp_path, encoded(noise(300, 200), "PNG"), output_format=wanted, max_bytes=12_000)
    assert 7_000 < processed.size_bytes <= 12_000


def test_the_setting_decides() -> None:
    assert Limits.of(Settings()).output_format == "auto"
    assert Limits.of(Settings(output_format="avif")).output_format == "avif"

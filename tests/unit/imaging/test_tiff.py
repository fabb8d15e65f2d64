"""Of a TIFF that holds several pictures the right one is taken; a camera's raw file is refused with what to do."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from imaging_pictures import BLUE, RED, encoded, is_near, pixel, quarters, reason, run
from PIL import Image
from profiles import ADOBE_RGB, DISPLAY_P3, rgb_profile, to_srgb
from tiffs import Page, tiff_of

from dream.imaging import process_image

REDUCED, PAGE, MASK = 1, 2, 4


def full(width: int = 1200, height: int = 800) -> Image.Image:
    return quarters(width, height)


def small(width: int = 160, height: int = 107, colour: tuple[int, int, int] = (9, 9, 9)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def is_full(out: Image.Image) -> bool:
    return is_near(pixel(out, 0.1, 0.1), RED) and is_near(pixel(out, 0.1, 0.9), BLUE)


FILES: dict[str, tuple[Page, ...]] = {
    "a preview that says so": (Page(small(), {254: REDUCED}), Page(full())),
    "a preview that says so in the old way": (Page(small(), {255: 2}), Page(full(), {255: 1})),
    "a preview without a mark": (Page(small()), Page(full())),
    "a preview of another shape without a mark": (Page(small(160, 120)), Page(full())),
    "two previews, and a mask": (
        Page(small(), {254: REDUCED}),
        Page(small(600, 400), {254: REDUCED}),
        Page(full(1200, 800).convert("L"), {254: MASK}),
        Page(full()),
    ),
    "a preview above its picture": (Page(small(), {254: REDUCED}, below=(Page(full(), {254: 0}),)),),
    "a picture above its reduced ones": (Page(full(), below=(Page(small(600, 400), {254: REDUCED}), Page(small()))),),
    "a pyramid": (Page(full()), Page(small(600, 400), {254: REDUCED}), Page(small(300, 200), {254: REDUCED})),
    "a pyramid from its top": (Page(small(300, 200)), Page(small(600, 400)), Page(full())),
    "a document": (Page(full(), {254: PAGE}), Page(small(2400, 1600), {254: PAGE})),
    "a document by its page numbers": (Page(full(), {297: (0, 2)}), Page(small(2400, 1600), {297: (1, 2)})),
    "a document without marks": (Page(full()), Page(small(1200, 1600)), Page(small(1240, 1754))),
    "a document with a preview of each page": (
        Page(small(), {254: REDUCED | PAGE}),
        Page(full(), {254: PAGE}),
        Page(small(), {254: REDUCED | PAGE}),
        Page(small(2000, 2000), {254: PAGE}),
    ),
    "nothing but a reduced picture": (Page(full(), {254: REDUCED}),),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", FILES)
def test_the_picture_is_taken(tmp_path: Path, name: str, order: str) -> None:
    _, out = run(tmp_path, tiff_of(*FILES[name], order=order))
    assert out.size == (1200, 800)
    assert is_full(out)


def test_that_of_a_big_tiff_too(tmp_path: Path) -> None:
    for pages in FILES.values():
        _, out = run(tmp_path, tiff_of(*pages, is_big=True))
        assert out.size == (1200, 800)
        assert is_full(out)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4"])
def test_compressed_ones_are_decoded_from_the_right_directory(tmp_path: Path, compression: str) -> None:
    """The decoder of compressed pictures looks for the directory by itself."""
    mode = "1" if compression == "group4" else "RGB"
    pages = [small().convert(mode), full().convert(mode)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression=compression)
    _, out = run(tmp_path, data)
    assert out.size == (1200, 800)
    assert len(out.convert("L").getcolors(70_000) or ()) > 1  # the preview has one


def test_from_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for data in (
        tiff_of(*FILES["a preview without a mark"]),
        encoded(small(), "TIFF", save_all=True, append_images=[full()], compression="tiff_lzw"),
    ):
        out = Image.open(io.BytesIO(process_image(data, "a.tif")))
        assert out.size == (1200, 800)
        assert is_full(out)


def test_it_is_turned_and_converted_as_its_own_directory_says(tmp_path: Path) -> None:
    """Neither the preview's orientation nor its profile decide."""
    data = tiff_of(
        Page(small(), {254: REDUCED, 274: 3, 34675: rgb_profile(ADOBE_RGB)}),
        Page(Image.new("RGB", (1200, 800), (200, 60, 60)), {274: 6, 34675: rgb_profile(DISPLAY_P3)}),
    )
    _, out = run(tmp_path, data)
    assert out.size == (800, 1200)
    assert is_near(pixel(out, 0.5, 0.5), (*to_srgb((200, 60, 60), DISPLAY_P3), 255), 4)


def test_directories_that_lead_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    for leads_to in (0, 1):
        _, out = run(tmp_path, tiff_of(Page(small()), Page(full()), last_leads_to=leads_to))
        assert out.size == (1200, 800)
    data = bytearray(tiff_of(Page(small(), {330: (1, 2)}), Page(full())))
    place = data.index(struct.pack("<HHLHH", 330, 3, 2, 1, 2))
    data[place + 8 : place + 12] = struct.pack("<HH", 8, 65_000)  # nothing is there
    _, out = run(tmp_path, bytes(data))
    assert out.size == (1200, 800)


def test_limits_hold_for_the_picture_that_is_taken(tmp_path: Path) -> None:
    bomb = Page(small(), {256: 60_000, 257: 60_000})
    for data in (
        tiff_of(Page(small(), {254: REDUCED}), bomb),
        tiff_of(Page(small()), bomb),
        tiff_of(Page(small(), {254: REDUCED}, below=(bomb,))),
    ):
        assert "3600 million pixels" in reason(tmp_path, data)
        (tmp_path / "secret-name.jpg").unlink()
    assert "0.96 million pixels" in reason(tmp_path, tiff_of(Page(small()), Page(full())), max_pixels=900_000)


def test_very_many_directories_are_refused_at_once(tmp_path: Path) -> None:
    """Empty ones, each of which leads to the next."""
    directories = b"".join(struct.pack("<HL", 0, 8 + 6 * (number + 1)) for number in range(300_000))
    assert reason(tmp_path, b"II*\0" + struct.pack("<L", 8) + directories) == (
        "the file is made of too many small pieces"
    )


def test_strips_are_counted_of_the_picture_that_is_taken(tmp_path: Path) -> None:
    many = {273: tuple(range(70_000, 70_000 + 200_001))}
    data = tiff_of(Page(small(), {254: REDUCED}), Page(full(), many))
    assert reason(tmp_path, data) == "the file is made of too many small pieces"


def sensor() -> Page:
    return Page(full(), {254: 0, 262: 32803, 277: 1, 258: 16})


RAW_FILES: dict[str, bytes] = {
    "DNG": tiff_of(Page(small(), {254: REDUCED, 50706: b"\1\4\0\0"}, below=(sensor(),))),
    "DNG that is a picture by its first directory": tiff_of(Page(full(), {50706: b"\1\4\0\0"})),
    "linear DNG": tiff_of(Page(small(), {254: REDUCED}, below=(Page(full(), {262: 34892}),)), order=">"),
    "NEF or ARW": tiff_of(Page(small(), {254: REDUCED}, below=(Page(full(), {254: REDUCED}), sensor())), order=">"),
    "PEF": tiff_of(sensor(), Page(small(), {254: REDUCED}), order=">"),
    "SRW": tiff_of(Page(small(), {254: REDUCED}, below=(Page(full(), {259: 32770}),))),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tiff_of(Page(small()))[8:],
    "ORF": b"IIRO\x08\0\0\0" + bytes(200),
    "RW2": b"IIU\0\x08\0\0\0" + bytes(200),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(200),
    "CR3": struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom" + bytes(200),
}


@pytest.mark.parametrize("kind", RAW_FILES)
def test_a_raw_file_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    said = reason(tmp_path, RAW_FILES[kind])
    assert said.startswith("the file is a raw picture of a camera")
    assert said.endswith("export it as JPEG and upload the JPEG")


def test_a_big_tiff_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    assert "save it as JPEG or PNG" in reason(tmp_path, tiff_of(Page(full()), order=">", is_big=True))

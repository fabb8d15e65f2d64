"""Animations look as browsers show them: what a frame leaves behind, what is transparent, and what is no frame.

`FRAMES` has what is seen at four places of each frame; `test_chromium_agrees` holds it against a real Chromium.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from imaging_pictures import is_near, run
from moving import BLUE, CLEAR, GREEN, RED, WHITE, Part, apng, gif
from PIL import Image, ImageSequence
from playwright.sync_api import Browser, Page

#: Top left, inside the small box below, the middle, bottom right.
PLACES = ((2, 2), (12, 12), (20, 20), (37, 37))
SMALL, CORNER = (8, 8, 10, 10), (0, 0, 6, 6)
GREY_0, GREY_1, GREY_2 = ((level, 0, 0, 255) for level in range(3))
KEEP, BACKGROUND, PREVIOUS = 0, 1, 2

ALL_RED, NONE = (RED,) * 4, (CLEAR,) * 4
FRAMES = {
    "gif, cleared without a transparent index": (
        gif(Part(RED, disposal=2), Part(GREEN, CORNER)),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "gif, cleared with a background colour": (
        gif(Part(RED, disposal=2), Part(GREEN, CORNER), background=2),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "gif, cleared with a transparent index": (
        gif(Part(RED, disposal=2, names_transparent=True), Part(GREEN, CORNER)),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "gif, a part cleared": (
        gif(Part(RED, disposal=1), Part(GREEN, SMALL, disposal=2), Part(BLUE, CORNER)),
        [ALL_RED, (RED, GREEN, RED, RED), (BLUE, CLEAR, RED, RED)],
    ),
    "gif, a part restored": (
        gif(Part(RED, disposal=1), Part(GREEN, SMALL, disposal=3), Part(BLUE, CORNER)),
        [ALL_RED, (RED, GREEN, RED, RED), (BLUE, RED, RED, RED)],
    ),
    "gif, a part restored by another number": (
        gif(Part(RED, disposal=1), Part(GREEN, SMALL, disposal=4), Part(BLUE, CORNER)),
        [ALL_RED, (RED, GREEN, RED, RED), (BLUE, RED, RED, RED)],
    ),
    "gif, the first frame restored": (
        gif(Part(RED, disposal=3), Part(GREEN, CORNER)),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "gif, cleared once only": (
        gif(Part(RED, disposal=2), Part(GREEN, SMALL), Part(BLUE, CORNER)),
        [ALL_RED, (CLEAR, GREEN, CLEAR, CLEAR), (BLUE, GREEN, CLEAR, CLEAR)],
    ),
    "gif, a first frame that does not cover it": (
        gif(Part(RED, CORNER), Part(GREEN, SMALL)),
        [(RED, CLEAR, CLEAR, CLEAR), (RED, GREEN, CLEAR, CLEAR)],
    ),
    "gif, a frame that is larger": (
        gif(Part(RED), Part(GREEN, (30, 30, 40, 40))),
        [ALL_RED, (RED, RED, RED, GREEN)],
    ),
    "gif, a transparent frame": (
        gif(Part(RED), Part(CLEAR), Part(GREEN, CORNER)),
        [ALL_RED, ALL_RED, (GREEN, RED, RED, RED)],
    ),
    "apng, cleared in a mode without transparency": (
        apng(Part(RED, disposal=BACKGROUND), Part(GREEN, CORNER, over=True), mode="RGB"),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "apng, its still is no frame": (
        apng(Part(GREEN, CORNER, over=True), Part(BLUE, SMALL, over=True), default=RED),
        [(GREEN, CLEAR, CLEAR, CLEAR), (GREEN, BLUE, CLEAR, CLEAR)],
    ),
    "apng, its first frame restored": (
        apng(Part(RED, disposal=PREVIOUS), Part(GREEN, CORNER)),
        [ALL_RED, (GREEN, CLEAR, CLEAR, CLEAR)],
    ),
    "apng, a part restored": (
        apng(Part(RED), Part(GREEN, SMALL, disposal=PREVIOUS), Part(BLUE, CORNER)),
        [ALL_RED, (RED, GREEN, RED, RED), (BLUE, RED, RED, RED)],
    ),
    "apng, a hole": (apng(Part(RED), Part(CLEAR, SMALL)), [ALL_RED, (RED, CLEAR, RED, RED)]),
    "apng, no hole": (
        apng(Part(RED), Part(CLEAR, SMALL, over=True), Part(GREEN, CORNER)),
        [ALL_RED, ALL_RED, (GREEN, RED, RED, RED)],
    ),
    "apng, a transparent colour laid over": (
        apng(Part(RED), Part(WHITE, SMALL, over=True), Part(GREEN, CORNER), mode="RGB"),
        [ALL_RED, ALL_RED, (GREEN, RED, RED, RED)],
    ),
    "apng, a transparent colour that replaces": (
        apng(Part(RED), Part(WHITE, SMALL), mode="RGB"),
        [ALL_RED, (RED, CLEAR, RED, RED)],
    ),
    "apng, a transparent grey of 2 bits laid over": (
        apng(Part(GREY_1), Part((3, 0, 0, 255), SMALL, over=True), Part(GREY_2, CORNER), mode="L2"),
        [((85, 85, 85, 255),) * 4] * 2 + [((170, 170, 170, 255), *((85, 85, 85, 255),) * 3)],
    ),
    "apng, a transparent grey of 2 bits that replaces": (
        apng(Part(GREY_1), Part((3, 0, 0, 255), SMALL), mode="L2"),
        [((85, 85, 85, 255),) * 4, ((85, 85, 85, 255), CLEAR, (85, 85, 85, 255), (85, 85, 85, 255))],
    ),
}
CANVAS = "<canvas width=40 height=40>"
#: Animations of one frame, which come out as stills.
STILLS = {
    "gif that does not cover its screen": (gif(Part(RED, SMALL)), (CLEAR, RED, CLEAR, CLEAR)),
    "apng of one frame and a still that is none": (apng(Part(GREEN, SMALL), default=RED), (CLEAR, GREEN, CLEAR, CLEAR)),
    "apng of one frame": (apng(Part(RED)), ALL_RED),
}


def is_like(seen: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Like in what can be seen: hidden colours differ."""
    return seen[3] == expected[3] == 0 or is_near(seen, expected, 12)


def assert_shows(picture: Image.Image, expected: tuple[tuple[int, ...], ...]) -> None:
    rgba = picture.convert("RGBA")
    seen = tuple(rgba.getpixel(place) for place in PLACES)
    assert all(map(is_like, seen, expected)), (seen, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FRAMES)
def test_each_frame_looks_as_in_a_browser(tmp_path: Path, kind: str) -> None:
    data, expected = FRAMES[kind]
    _, out = run(tmp_path, data)
    shown = [frame.copy() for frame in ImageSequence.Iterator(out)]
    changes = [colours for number, colours in enumerate(expected) if number == 0 or colours != expected[number - 1]]
    assert len(shown) == len(changes)  # the encoder makes one frame of those that are alike
    for picture, colours in zip(shown, changes, strict=True):
        assert_shows(picture, colours)


@pytest.mark.parametrize("kind", STILLS)
def test_an_animation_of_one_frame_is_a_still(tmp_path: Path, kind: str) -> None:
    data, expected = STILLS[kind]
    _, out = run(tmp_path, data)
    assert getattr(out, "n_frames", 1) == 1
    assert_shows(out, expected)


def test_where_no_animation_is_wanted_its_first_frame_is_taken(tmp_path: Path) -> None:
    """Not the still beside it, which no browser shows."""
    _, out = run(tmp_path, apng(Part(GREEN), Part(BLUE), default=RED), output_format="jpeg")
    assert_shows(out, (GREEN,) * 4)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    page = browser.new_page()
    page.route("https://pictures.test/", lambda route: route.fulfill(body=CANVAS, content_type="text/html"))
    page.goto("https://pictures.test/")  # a secure context, which ImageDecoder wants
    return page


_DECODE = """async ([kind, data]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const decoder = new ImageDecoder({type: kind, data: bytes, preferAnimation: true});
    await decoder.completed;
    await decoder.tracks.ready;
    const context = document.querySelector("canvas").getContext("2d", {willReadFrequently: true});
    const frames = [];
    for (let number = 0; number < decoder.tracks.selectedTrack.frameCount; number++) {
        const {image} = await decoder.decode({frameIndex: number});
        context.clearRect(0, 0, 40, 40);
        context.drawImage(image, 0, 0);
        frames.push([[2, 2], [12, 12], [20, 20], [37, 37]].map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]));
    }
    return frames;
}"""


@pytest.mark.parametrize("kind", [*FRAMES, *STILLS])
def test_chromium_agrees(page: Page, kind: str) -> None:
    data, expected = FRAMES.get(kind) or (STILLS[kind][0], [STILLS[kind][1]])
    mime = "image/gif" if data.startswith(b"GIF") else "image/png"
    frames = page.evaluate(_DECODE, [mime, base64.b64encode(data).decode()])
    assert len(frames) == len(expected)
    for seen, colours in zip(frames, expected, strict=True):
        assert all(map(is_like, seen, colours)), (seen, colours)

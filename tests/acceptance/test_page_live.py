"""dream's own page on the whole stack: through deaths, its speed, and its looks, each without a barrier that axe finds.

`make screenshots` keeps the pictures of the looks in `docs/images`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from dream.stack.samples import draw
from tests.acceptance.test_live import Stack
from tests.acceptance.test_stack import part_of, process_named
from tests.conftest import wait_for
from tests.pictures import noise
from tests.processes import processes_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Crops of the drawn landscape, as shares of its sides, and turns of its colours, of 256.
_SCENES = [
    (0.0, 0.0, 1.0, 1.0, 0),
    (0.1, 0.1, 0.55, 0.95, 238),
    (0.2, 0.2, 1.0, 0.75, 12),
    (0.3, 0.0, 0.85, 0.75, 226),
    (0.0, 0.3, 1.0, 0.95, 246),
    (0.4, 0.1, 0.8, 0.8, 20),
    (0.0, 0.1, 0.9, 0.7, 6),
    (0.15, 0.0, 0.65, 1.0, 250),
    (0.25, 0.2, 0.95, 0.7, 234),
    (0.05, 0.25, 0.6, 0.7, 16),
]
_DRAWN_PX = (1800, 1350)
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
MAX_UPLOAD_BYTES = 6_000_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("page") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAM_MAX_UPLOAD_BYTES", str(MAX_UPLOAD_BYTES))
        stack = Stack(data)
    yield stack
    stack.stop()
    wait_for(lambda: not processes_with(str(data)), timeout_s=15, what="the end of every process of the stack")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten drawn pictures of several shapes."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = Image.open(draw(folder / "drawn")[0]).resize(_DRAWN_PX)
    made = []
    for number, (left, top, right, bottom, turn) in enumerate(_SCENES):
        hue, *rest = drawn.crop((*_scaled(left, top), *_scaled(right, bottom))).convert("HSV").split()
        turned = Image.merge("HSV", [hue.point([(level + turn) % 256 for level in range(256)]), *rest])
        made.append(folder / f"hills {number + 1}.jpg")
        turned.convert("RGB").save(made[-1], quality=90)
    return made


def _scaled(x: float, y: float) -> tuple[int, int]:
    return int(_DRAWN_PX[0] * x), int(_DRAWN_PX[1] * y)


@contextmanager
def opened(browser: Browser, stack: Stack, dream_id: int, size: Any = None, scheme: Any = "light") -> Iterator[Page]:
    size = size or DESKTOP
    is_phone = size["width"] < 500
    with browser.new_context(
        viewport=size, color_scheme=scheme, is_mobile=is_phone, has_touch=is_phone, locale="en", reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        own = stack.dream("token", "--user-id", "1", "--dream-id", str(dream_id))
        page.goto(f"{stack.url}/#dream={dream_id}&token={own}")
        expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=20_000)
        yield page


def tiles(page: Page) -> Locator:
    return page.locator("dream-gallery .tile")


def choose(page: Page, *files: Path | tuple[str, bytes]) -> None:
    chosen: list[Any] = [
        {"name": name, "mimeType": "image/jpeg", "buffer": data}
        for name, data in ((each.name, each.read_bytes()) if isinstance(each, Path) else each for each in files)
    ]
    page.locator("dream-upload input").first.set_input_files(chosen)


def states(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.locator("dream-gallery").evaluate(
        "({ client }) => Object.fromEntries([...client.pictures.values()].map((each) => [each.filename, each.state]))"
    )
    return found


def test_two_browsers_are_true_after_deaths(browser: Browser, stack: Stack, photos: list[Path]) -> None:
    """Six files, one damaged and one too large, while gateway and Redis are killed and a browser goes offline.

    In the end both browsers show what the server lists: four pictures, and one failure with its reason.
    """
    damaged = ("damaged.jpg", photos[0].read_bytes()[:20_000] + b"\0" * 20_000)
    large = ("large.jpg", noise(600, 400) + b"x" * MAX_UPLOAD_BYTES)
    with opened(browser, stack, 31) as sender, opened(browser, stack, 31, PHONE, "dark") as watcher:
        choose(sender, *photos[:2], damaged, large)
        gateway, valkey = part_of(stack.data, "gateway"), process_named(stack.data, "valkey-server")
        assert gateway is not None
        assert valkey is not None
        os.kill(gateway, signal.SIGKILL)
        choose(sender, *photos[2:4])
        watcher.context.set_offline(True)
        os.kill(valkey, signal.SIGKILL)
        wait_for(lambda: part_of(stack.data, "gateway") not in (None, gateway), timeout_s=30, what="the gateway")
        watcher.context.set_offline(False)
        expected = {path.name: "completed" for path in photos[:4]} | {"damaged.jpg": "failed"}
        for page in (sender, watcher):
            wait_for(lambda page=page: states(page) == expected, timeout_s=120, what=f"the end: {states(page)}")  # type: ignore[misc]
            expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=20_000)
        refused = sender.locator("dream-upload .file")
        expect(refused).to_have_count(1)
        expect(refused).to_contain_text("large.jpg")
        expect(sender.locator("dream-gallery .tile[data-state=failed]")).to_contain_text("damaged")


def test_the_first_picture_is_there_within_a_second(browser: Browser, stack: Stack, photos: list[Path]) -> None:
    """From the address to a thumbnail that is drawn; the best of five, because tests share the machine."""
    stack.dream("upload", *map(str, photos), "--dream-id", "32", "--wait")
    own = stack.dream("token", "--user-id", "1", "--dream-id", "32")
    took_ms = []
    for _ in range(5):
        with browser.new_context(viewport=DESKTOP) as context, context.new_page() as page:  # type: ignore[arg-type]
            page.goto(f"{stack.url}/#dream=32&token={own}", wait_until="commit")
            image = tiles(page).locator("img").first
            expect(image).to_have_js_property("complete", True, timeout=20_000)
            wait_for(lambda image=image: image.evaluate("image => image.naturalWidth > 0"), what="the picture")  # type: ignore[misc]
            took_ms.append(
                page.evaluate(
                    "Math.min(...performance.getEntriesByType('resource')"
                    ".filter((each) => each.initiatorType === 'img').map((each) => each.responseEnd))"
                )
            )
    assert min(took_ms) < 1000, took_ms


# --- the looks


def keep(page: Page, name: str) -> None:
    """Check a look with axe, and keep its picture if wanted."""
    violations = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
    if folder := os.environ.get("DREAM_TEST_SCREENSHOTS"):
        target = Path(folder) / f"{name}.png"
        page.screenshot(path=target)
        drawn = Image.open(target).convert("RGB")
        drawn.save(target.with_suffix(".webp"), quality=82, method=6)
        target.unlink()


def wait_for_pictures(page: Page) -> None:
    script = "tiles => tiles.every((each) => !each.querySelector('img') || each.querySelector('img').naturalWidth > 0)"
    wait_for(lambda: tiles(page).count() > 2 and tiles(page).evaluate_all(script), what="the thumbnails")


def test_no_look_has_a_barrier(browser: Browser, stack: Stack, photos: list[Path]) -> None:
    """Empty, entry, gallery on a desktop and a phone, viewer, sending, failed, operators; light and dark."""
    with opened(browser, stack, 34) as page:
        expect(page.get_by_role("heading", name="Add your first pictures")).to_be_visible()
        keep(page, "page-empty")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#entry")).to_be_visible()
        keep(page, "page-entry")
    stack.dream("upload", *map(str, photos), "--dream-id", "33", "--wait")
    with opened(browser, stack, 33) as page:
        wait_for_pictures(page)
        keep(page, "page")
        tiles(page).first.click()
        expect(page.get_by_role("dialog").locator("img").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        keep(page, "page-viewer")
    with opened(browser, stack, 33, PHONE, "dark") as page:
        wait_for_pictures(page)
        keep(page, "page-phone")
    with opened(browser, stack, 33, DESKTOP, "dark") as page:
        wait_for_pictures(page)
        slow = {"offline": False, "latency": 20, "downloadThroughput": 5e6, "uploadThroughput": 150e3}
        wire = page.context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.send("Network.emulateNetworkConditions", slow)
        choose(page, *photos[:3])
        choose(page, photos[4], ("notes.jpg", b""))
        expect(page.locator("dream-upload .file[data-state=sending]").first).to_be_visible()
        wait_for(lambda: page.evaluate(_SHARE) > 0.3, timeout_s=60, what="a share of the first file")
        panel = page.locator("dream-upload [part=queue]").bounding_box()
        assert panel is not None
        assert panel["y"] > 0.2 * DESKTOP["height"]  # at the bottom, beside the pictures
        keep(page, "page-sending")
    with opened(browser, stack, 35, PHONE) as page:
        damaged = ("damaged.jpg", photos[0].read_bytes()[:20_000] + b"\0" * 20_000)
        choose(page, *photos[:4], damaged, ("large.jpg", b"x" * (MAX_UPLOAD_BYTES + 1)))
        wait_for(lambda: sorted(states(page).values()) == ["completed"] * 4 + ["failed"], timeout_s=60, what="the end")
        wait_for_pictures(page)
        keep(page, "page-failed")
    own = stack.dream("token", "--user-id", "1", "--operator")
    with browser.new_context(viewport=DESKTOP, locale="en") as context, context.new_page() as page:  # type: ignore[arg-type]
        page.goto(f"{stack.url}/ops#token={own}")
        page.wait_for_load_state("networkidle")
        expect(page.locator(".life")).to_contain_text("live")
        expect(page.get_by_role("heading").nth(2)).to_be_visible()
        keep(page, "ops")


_SHARE = "Math.max(0, ...document.querySelector('dream-upload').client.uploads.items.map((each) => each.share))"

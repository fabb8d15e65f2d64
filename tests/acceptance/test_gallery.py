"""`<dream-gallery>` in a real browser, on a real gateway and store: tiles, viewer, selection, undo, own order."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from sqlalchemy import insert

from dream.db import DreamImage, DreamTask, images
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState
from dream.storage import Storage
from tests.acceptance.conftest import quiet
from tests.conftest import wait_for
from tests.gateway import DREAM, KEY, Gateway, auth, emptied, running, token

#: Width and height of the pictures, again and again.
SHAPES = ((160, 120), (120, 160), (200, 100), (150, 150))
THUMBHASH = "UBgGDwIfenaohmeIakiZdndpuQmnqnAJ"

_SHOW = """async ([dream, token]) => {
  const { theme } = await import("/static/client/theme.js");
  document.adoptedStyleSheets = [theme];
  document.documentElement.lang = "en";
  document.title = "gallery";
  document.documentElement.style.cssText = "color-scheme: light dark; background: var(--back)";
  await import("/static/dream-client.js");
  const main = document.createElement("main");
  const gallery = document.createElement("dream-gallery");
  gallery.setAttribute("dream", dream);
  gallery.setAttribute("token", token);
  gallery.append(Object.assign(document.createElement("p"), { slot: "empty", textContent: "Drop some here." }));
  main.append(Object.assign(document.createElement("h1"), { textContent: "gallery" }), gallery);
  document.body.replaceChildren(main);
}"""


@pytest.fixture(scope="module")
def shared(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), servers) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    return emptied(shared)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1000, "height": 700}, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may say nothing wrong on its console."""
    with quiet(context.new_page()) as page:
        yield page


def show(page: Page, gateway: Gateway) -> Locator:
    """Open a page with nothing but the gallery; the tiles of pictures, in the document's order."""
    page.goto(f"http://127.0.0.1:{gateway.port}/healthz")
    page.evaluate(_SHOW, [DREAM, token()])
    return page.locator(".tile")


def stored(gateway: Gateway, count: int) -> list[int]:
    """Finished pictures with files, the ids in order."""
    storage, ids = Storage(gateway.settings), []
    for number in range(count):
        width, height = SHAPES[number % len(SHAPES)]
        file = io.BytesIO()
        Image.new("RGB", (width, height), (40 + 20 * number, 90, 160)).save(file, "JPEG")
        ids.append(gateway.add_image(number=number))
        with gateway.database.begin() as session:
            image = images.by_id(session, DREAM, ids[-1])
            assert image is not None
            image.width_px, image.height_px, image.size_bytes = width, height, file.tell()
            image.content_type, image.dominant_colour = "image/jpeg", "#285aa0"
            image.url = f"http://127.0.0.1:{gateway.port}/media/{image.storage_key}"
            storage.put_bytes(gateway.settings.s3_bucket, image.storage_key, file.getvalue())
    return ids


def names(page: Page) -> list[str]:
    """The file names of all pictures in the gallery's order, also of those far from the screen."""
    found: list[str] = page.locator("dream-gallery").evaluate("gallery => gallery.shown().map((each) => each.filename)")
    return found


def focused(page: Page) -> str:
    """The name of the focused tile or button."""
    found: str = page.locator("dream-gallery").evaluate(
        "({ shadowRoot: { activeElement: at } }) => at?.title || at?.getAttribute('aria-label') || ''"
    )
    return found


def expect_focus(page: Page, name: str) -> None:
    """Wait for the focus, which a tile gets in the next frame, or when the dialog has told of its end."""
    wait_for(lambda: focused(page) == name, what=lambda: f"the focus of {name}, not {focused(page)}")


def there(gateway: Gateway) -> list[int]:
    """The ids of the pictures that the server lists, in the own order."""
    listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    return [each["id"] for each in listed]


# --- the layout


@pytest.mark.slow
def test_rows_fill_the_width_and_the_nearest_gap_is_found(page: Page, gateway: Gateway) -> None:
    """Rows of any shapes end at the right edge and are near the wanted height; points and keys find their tiles."""
    page.goto(f"http://127.0.0.1:{gateway.port}/healthz")
    wrong = page.evaluate(
        """async () => {
          const { beside, between, gapAt, justified } = await import("/static/client/layout.js");
          const ratios = Array.from({ length: 500 }, (_, index) => 0.6 + ((index * 37) % 100) / 60);
          const wrong = [];
          for (const [width, wanted, gap] of [[336, 112, 4], [1240, 230, 8]]) {
            const layout = justified(ratios, width, wanted, gap);
            layout.rows.slice(0, -1).forEach(({ y, height, end }, row) => {
              const { x, width: own } = layout.boxes[end - 1];
              if (Math.abs(x + own - width) > 1 || height < wanted / 1.6 || height > wanted * 1.6) wrong.push(row);
              if (y + height + gap !== layout.rows[row + 1].y) wrong.push(row);
            });
            layout.boxes.forEach(({ x, y, width: own, height, row }, index) => {
              if (gapAt(layout, x + 1, y + 1).before !== index) wrong.push(index);
              if (gapAt(layout, x + own - 1, y + height - 1).before !== index + 1) wrong.push(index);
              const [first, end] = between(layout, y + 1, y + 1);
              if (index < first || index >= end) wrong.push(index);
              if (row && layout.boxes[beside(layout, index, -1)].row !== row - 1) wrong.push(index);
            });
          }
          return wrong;
        }"""
    )
    assert wrong == []


def test_a_move_changes_few_positions_and_gives_the_wanted_order(page: Page, gateway: Gateway) -> None:
    """Any pictures to any place, among positions that are shared or far apart; what needs no change has none."""
    page.goto(f"http://127.0.0.1:{gateway.port}/healthz")
    wrong = page.evaluate(
        """async () => {
          const { isBefore, rearranged } = await import("/static/client/arrange.js");
          const sort = (list) => list.sort((one, other) => (isBefore(one, other) ? -1 : 1));
          const wrong = [];
          for (let round = 0; round < 600; round++) {
            const list = sort(Array.from({ length: 1 + (round % 9) }, (_, index) =>
              ({ id: 1 + ((index * 5 + round) % 9), position: (index * round * 7) % (round % 2 ? 3 : 50) })));
            const ids = new Set(list.filter((_, index) => (round >> index) % 3 === 0).map(({ id }) => id));
            const before = round % (list.length + 1);
            const stays = (each) => !ids.has(each.id);
            const wanted = [...list.slice(0, before).filter(stays), ...list.filter((each) => !stays(each)),
              ...list.slice(before).filter(stays)].map(({ id }) => id);
            const { changes } = rearranged(list, ids, before);
            const changed = new Map(changes.map(({ id, position }) => [id, position]));
            const now = sort(list.map(({ id, position }) => ({ id, position: changed.get(id) ?? position })));
            if (String(now.map(({ id }) => id)) !== String(wanted)) wrong.push([list, [...ids], before, changes]);
            if (String(list.map(({ id }) => id)) === String(wanted) && changes.length) wrong.push("needless");
          }
          const apart = [10, 20, 30].map((position, index) => ({ id: index + 1, position }));
          return [wrong, rearranged(apart, new Set([3]), 1).changes];
        }"""
    )
    assert wrong == [[], [{"id": 3, "position": 10}]]


# --- tiles


def test_tiles_show_thumbnails_newest_first_and_nothing_jumps(page: Page, gateway: Gateway) -> None:
    """A grid with labels; each file is as wide as its tile; what is new or gone elsewhere is so here."""
    ids = stored(gateway, 6)
    page.add_init_script(
        """globalThis.shifts = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((each) => (shifts += each.value)))
            .observe({ type: "layout-shift", buffered: true });"""
    )
    tiles = show(page, gateway)
    expect(tiles).to_have_count(6)
    expect(page.locator(".tile img[data-loaded]")).to_have_count(6)
    assert names(page) == [f"{number}.jpg" for number in reversed(range(6))]
    assert page.evaluate("shifts") < 0.01
    first = tiles.first
    expect(page.get_by_role("gridcell", name="5.jpg", exact=True)).to_be_visible()
    expect(first.locator("img")).to_have_attribute("loading", "lazy")
    width = first.evaluate("tile => tile.offsetWidth")
    assert first.locator("img").get_attribute("sizes") == f"{width}px"
    ends = page.locator(".tile").evaluate_all("tiles => tiles.map((each) => each.getBoundingClientRect().right)")
    assert max(ends) <= page.evaluate("innerWidth")
    with page.context.new_page() as other:
        show(other, gateway)
        expect(other.locator(".tile")).to_have_count(6)
        gateway.add_image(ImageState.PENDING, number=9)
        assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, task_id="task9"))
        for each in (page, other):
            expect(each.locator(".tile[title='9.jpg'] strong")).to_have_text("Waiting")
            assert names(each)[0] == "9.jpg"
        expect(page.get_by_role("status").filter(has_text="1 new picture.")).to_be_attached()
        other.locator(".tile[title='3.jpg']").click(modifiers=["Control"])
        other.get_by_role("button", name="Delete").click()
        assert "3.jpg" not in names(other)
        other.goto("about:blank")
    wait_for(lambda: page.evaluate("1") and len(there(gateway)) == 6, what="the deletion")
    gone: Any = {"id": ids[3], "url": f"http://127.0.0.1:{gateway.port}/media/{KEY[:-5]}3.jpg", "position": 3}
    done = ImageUpdate(dream_id=DREAM, status=UpdateStatus.DELETE_COMPLETED, images=(gone,), task_id="gone")
    assert gateway.publisher.publish(done)
    expect(page.locator(".tile[title='3.jpg']")).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="1 picture was deleted.")).to_be_attached()


def test_unfinished_and_failed_pictures_say_their_state_in_words(page: Page, gateway: Gateway) -> None:
    """A ring with the progress, then a reason with what may be done; without pictures the page's own invitation."""
    show(page, gateway)
    expect(page.get_by_text("Drop some here.")).to_be_visible()
    gateway.add_image(ImageState.PENDING, number=1)
    half = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, progress=50, task_id="task1")
    assert gateway.publisher.publish(half)
    tile = page.locator(".tile")
    expect(tile.get_by_role("progressbar", name="1.jpg")).to_have_attribute("aria-valuenow", "50")
    expect(page.get_by_text("Drop some here.")).to_be_hidden()
    with gateway.database.begin() as session:
        (image,) = images.list_images(session, DREAM)
        image.state, image.error, image.error_code = ImageState.FAILED, "the picture is damaged", "image_damaged"
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.FAILED, task_id="task1"))
    expect(tile.locator("strong")).to_have_text("Failed")
    expect(tile).to_have_attribute("aria-label", "1.jpg, failed, the picture is damaged")
    expect(tile.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="1 picture failed: The picture is damaged")).to_be_attached()
    gateway.add_image(ImageState.FAILED, number=2)
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.FAILED, task_id="task2"))
    other = page.locator(".tile[title='2.jpg']")
    expect(other.get_by_role("button", name="Try again")).to_be_visible()
    other.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("Not tried again: ")
    other.get_by_role("button", name="Delete").click()
    expect(other).to_have_count(0)


# --- the viewer


def test_the_viewer_is_walked_by_keys_zooms_and_gives_the_focus_back(page: Page, gateway: Gateway) -> None:
    """Enter opens; arrows walk; + and − zoom; i shows facts; Escape and the browser's Back close, and focus returns."""
    ids = stored(gateway, 5)
    with gateway.database.begin() as session:
        image = images.by_id(session, DREAM, ids[2])
        assert image is not None
        image.facts = {"taken_at": "2026-05-04T10:20:30+02:00", "make": "Fuji", "exposure_s": 0.004, "f_number": 2.8}
    show(page, gateway)
    expect(page.locator(".tile img[data-loaded]")).to_have_count(5)
    page.keyboard.press("Tab")
    while focused(page) != "4.jpg":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_have_attribute("aria-label", "4.jpg")
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("h2")).to_have_text("4.jpg1 / 5")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_have_attribute("aria-label", "2.jpg")
    shown = dialog.locator(".slide:not([inert]) img")
    expect(shown).to_have_js_property("naturalWidth", 200)
    page.keyboard.press("+")
    assert "scale(1.5)" in (shown.get_attribute("style") or "")
    page.keyboard.press("-")
    assert "scale" not in (shown.get_attribute("style") or "")
    shown.dblclick()
    assert "scale(2.5)" in (shown.get_attribute("style") or "")
    page.keyboard.press("0")
    page.mouse.wheel(0, -300)
    wait_for(lambda: "scale" in (shown.get_attribute("style") or ""), what="the zoom of the wheel")
    page.keyboard.press("i")
    expect(dialog.get_by_role("region", name="Facts")).to_contain_text("Fuji")
    expect(dialog.get_by_role("region", name="Facts")).to_contain_text("1/250 s · f/2.8")
    page.keyboard.press("0")
    dialog.get_by_role("button", name="Choose the focal point").click()
    dialog.get_by_role("button", name="Click the point that crops keep").wait_for()
    box = shown.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    expect(page.get_by_role("status").filter(has_text="The focal point is set.")).to_be_attached()
    focus = gateway.http.get(f"/api/dreams/{DREAM}/images/{ids[2]}", headers=auth()).json()["focus"]
    assert focus == pytest.approx([0.25, 0.5], abs=0.02)
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename == "2.jpg"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect_focus(page, "2.jpg")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.go_back()
    expect(dialog).to_be_hidden()
    assert page.url.endswith("/healthz")
    expect_focus(page, "2.jpg")


def test_the_viewer_is_swiped_and_deletes_with_undo(browser: Browser, gateway: Gateway) -> None:
    """On a phone: a swipe walks, a swipe down closes; after a deletion comes the neighbour, and Undo is reachable."""
    stored(gateway, 4)
    with browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        tiles = show(page, gateway)
        expect(tiles).to_have_count(4)
        tops = tiles.evaluate_all("tiles => tiles.map((each) => each.getBoundingClientRect().top)")
        assert 2 <= tops.count(min(tops)) <= 3
        tiles.first.tap()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_have_attribute("aria-label", "3.jpg")
        expect(dialog.locator(".slide:not([inert]) img")).to_have_js_property("naturalWidth", 150)
        wire = context.new_cdp_session(page)

        def swipe(dx: int, dy: int) -> None:
            for part, kind in ((0, "touchStart"), (0.5, "touchMove"), (1, "touchMove"), (1, "touchEnd")):
                points = [{"x": 180 + dx * part, "y": 300 + dy * part}] if kind != "touchEnd" else []
                wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        swipe(-120, 5)
        expect(dialog).to_have_attribute("aria-label", "2.jpg")
        # Chromium takes a tap soon after a swipe for the end of the swipe.
        dialog.get_by_role("button", name="Delete").click()
        expect(dialog).to_have_attribute("aria-label", "1.jpg")
        assert names(page) == ["3.jpg", "1.jpg", "0.jpg"]
        dialog.get_by_role("button", name="Undo").click()
        expect(dialog).to_have_attribute("aria-label", "2.jpg")
        assert names(page) == ["3.jpg", "2.jpg", "1.jpg", "0.jpg"]
        swipe(5, 200)
        expect(dialog).to_be_hidden()


def test_a_long_press_selects_and_then_drags(browser: Browser, gateway: Gateway) -> None:
    """On a phone, where a touch that moves at once scrolls; the click at the end of a gesture opens nothing."""
    ids = stored(gateway, 4)
    phone: Any = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with browser.new_context(**phone, reduced_motion="reduce") as context:  # tiles that still move are missed
        page = context.new_page()
        show(page, gateway)
        page.get_by_role("button", name="Arranged").tap()
        expect(page.locator(".tile").first).to_have_attribute("title", "0.jpg")
        wire = context.new_cdp_session(page)

        def boxes() -> list[Any]:
            return [page.locator(f".tile[title='{name}.jpg']").bounding_box() for name in (3, 0)]

        wait_for(lambda: (found := boxes())[0]["y"] > found[1]["y"] and found == boxes(), what="tiles that stand")
        start, end = boxes()

        def touch(kind: str, *points: tuple[float, float]) -> None:
            wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

        touch("touchStart", (start["x"] + 30, start["y"] + 30))
        expect(page.locator(".tile[aria-selected=true]")).to_have_attribute("title", "3.jpg")
        touch("touchMove", (start["x"] + 10, start["y"] + 20))
        touch("touchMove", (end["x"] + 5, end["y"] + 20))
        touch("touchEnd")
        wait_for(lambda: names(page)[0] == "3.jpg", what="the picture that was dragged")
        assert there(gateway)[0] == ids[3]
        assert page.get_by_role("dialog").count() == 0


def test_two_fingers_neither_select_nor_break_anything(browser: Browser, gateway: Gateway) -> None:
    """A second finger ends the long press of the first one."""
    stored(gateway, 4)
    phone: Any = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with browser.new_context(**phone, reduced_motion="reduce") as context, quiet(context.new_page()) as page:
        page.clock.install()
        tiles = show(page, gateway)
        expect(tiles).to_have_count(4)
        boxes: Any = [tiles.nth(number).bounding_box() for number in (0, 1)]
        points = [{"x": box["x"] + 30, "y": box["y"] + 30, "id": number} for number, box in enumerate(boxes)]
        wire = context.new_cdp_session(page)
        for kind, touching in (("touchStart", points[:1]), ("touchStart", points), ("touchEnd", [])):
            wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touching})
        page.clock.run_for(1_000)
        expect(page.locator(".tile[aria-selected=true]")).to_have_count(0)


@pytest.mark.slow
def test_two_clicks_open_one_viewer(page: Page, gateway: Gateway) -> None:
    """Also while the browser still leaves the entry of the last one; Back leaves the only entry of the history."""
    stored(gateway, 2)
    tiles = show(page, gateway)
    expect(tiles).to_have_count(2)
    before = page.evaluate("history.length")
    tiles.first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.locator("dream-gallery").evaluate(
        """({ shadowRoot }) => {
          const [dialog, tile] = ["dialog", ".tile"].map((each) => shadowRoot.querySelector(each));
          const closed = new Promise((done) => dialog.addEventListener("close", done, { once: true }));
          dialog.close();
          return closed.then(() => void [tile.click(), tile.click()]);
        }"""
    )
    expect(dialog).to_be_visible()
    page.go_back()
    expect(dialog).to_be_hidden()
    assert page.evaluate("[history.length, history.state]") == [before + 1, None]


@pytest.mark.slow
def test_keys_work_after_their_button_has_gone(page: Page, gateway: Gateway) -> None:
    """In the viewer and in the gallery the focus goes to a neighbour; a key that is held deletes one picture."""
    stored(gateway, 6)
    show(page, gateway)
    page.locator(".tile[title='5.jpg']").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("i")
    dialog.get_by_role("button", name="Choose the focal point").click()
    expect(dialog.get_by_role("region", name="Facts")).to_contain_text("120 × 160")
    for name in ("4.jpg", "3.jpg"):
        page.keyboard.press("ArrowRight")
        expect(dialog).to_have_attribute("aria-label", name)
        expect(dialog.get_by_role("region", name="Facts")).to_contain_text(name)
    page.keyboard.down("Delete")
    page.keyboard.down("Delete")
    page.keyboard.up("Delete")
    assert names(page) == [f"{number}.jpg" for number in (5, 4, 2, 1, 0)]
    page.keyboard.press("Escape")
    expect_focus(page, "2.jpg")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    expect_focus(page, "1.jpg")
    page.route("**/api/dreams/*/images/*/retry", lambda route: route.abort())
    page.locator("dream-gallery").evaluate("(gallery) => gallery.again(gallery.list[0].id)")
    alert = page.get_by_role("alert").get_by_role("button", name="Dismiss")
    alert.focus()
    page.keyboard.press("Enter")
    expect_focus(page, "5.jpg")


# --- many


def test_many_are_selected_by_mouse_and_keys_and_come_back_by_undo(page: Page, gateway: Gateway) -> None:
    """Modifiers, ranges, all; the server is asked only after some seconds; focus goes to a neighbour."""
    ids = stored(gateway, 8)
    page.clock.install()
    tiles = show(page, gateway)
    expect(tiles).to_have_count(8)
    page.locator(".tile[title='6.jpg']").click(modifiers=["Control"])
    page.locator(".tile[title='4.jpg']").click(modifiers=["Shift"])
    expect(page.locator(".tile[aria-selected=true]")).to_have_count(3)
    expect(page.get_by_text("3 selected")).to_be_visible()
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_text("4 selected")).to_be_visible()
    page.keyboard.press("Space")
    expect(page.get_by_text("3 selected")).to_be_visible()
    page.keyboard.press("Delete")
    assert names(page) == ["7.jpg", "3.jpg", "2.jpg", "1.jpg", "0.jpg"]
    page.get_by_role("button", name="Undo").click()
    assert len(names(page)) == 8
    expect_focus(page, "6.jpg")
    page.clock.run_for(10_000)
    assert there(gateway) == ids
    page.keyboard.press("Control+a")
    expect(page.get_by_text("8 selected")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".tile[aria-selected=true]")).to_have_count(0)
    page.locator(".tile[title='0.jpg']").click(modifiers=["Control"])
    page.keyboard.press("Delete")
    expect_focus(page, "1.jpg")
    page.clock.run_for(7_000)
    wait_for(lambda: page.evaluate("1") and there(gateway) == ids[1:], what="the deletion")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


@pytest.mark.slow
def test_a_deletion_that_fails_is_said_and_a_closed_page_deletes(page: Page, gateway: Gateway) -> None:
    """Pictures that were not deleted are shown again with the reason, until it is dismissed."""
    ids = stored(gateway, 3)
    page.clock.install()
    show(page, gateway)
    page.route(
        "**/api/dreams/*/images/*",
        lambda route: route.abort() if route.request.method == "DELETE" else route.continue_(),
    )
    page.locator(".tile[title='2.jpg']").click(modifiers=["Control"])
    page.keyboard.press("Delete")
    assert names(page) == ["1.jpg", "0.jpg"]
    page.clock.run_for(7_000)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("1 picture was not deleted: the connection was lost")
    assert names(page) == ["2.jpg", "1.jpg", "0.jpg"]
    alert.get_by_role("button").click()
    expect(alert).to_have_count(0)
    page.unroute("**/api/dreams/*/images/*")
    page.locator(".tile[title='1.jpg']").click(modifiers=["Control"])
    page.keyboard.press("Delete")
    assert there(gateway) == ids
    page.goto("about:blank")
    wait_for(
        lambda: page.evaluate("1") and there(gateway) == [ids[0], ids[2]], what="the deletion of a page that is gone"
    )


def test_a_hidden_page_repeats_a_deletion_that_was_one_too_many(page: Page, gateway: Gateway) -> None:
    """It lives on in its tab, and its reader saw the picture go."""
    ids = stored(gateway, 2)
    page.clock.install()
    show(page, gateway)
    refused = {"status": 429, "json": {"error": "too many requests", "code": "too_many_requests"}}
    page.route(f"**/api/dreams/*/images/{ids[1]}", lambda route: route.fulfill(**refused), times=1)
    page.locator(".tile[title='1.jpg']").click(modifiers=["Control"])
    page.keyboard.press("Delete")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    with page.expect_response(lambda answer: answer.status == 429):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert there(gateway) == ids
    wait_for(lambda: page.clock.run_for(500) or there(gateway) == ids[:1], what="the deletion")


# --- the own order


def drag(page: Page, name: str, to: str) -> None:
    """Drag a picture in front of another one, once the tiles are where they belong."""
    titles = "tiles => tiles.map((each) => each.title)"
    wait_for(lambda: page.locator(".tile").evaluate_all(titles) == names(page), what="the tiles in order")
    start, end = (page.locator(f".tile[title='{each}']").bounding_box() for each in (name, to))
    assert start is not None
    assert end is not None
    page.mouse.move(start["x"] + 50, start["y"] + 50)
    page.mouse.down()
    page.mouse.move(start["x"] + 65, start["y"] + 50)
    page.mouse.move(end["x"] + 10, end["y"] + 50)
    page.mouse.up()


def test_pictures_are_arranged_by_dragging_and_by_keys(page: Page, gateway: Gateway) -> None:
    """In the own order only; a second gallery follows, Escape puts back, and a refusal is said."""
    ids = stored(gateway, 6)
    show(page, gateway)
    expect(page.locator(".tile")).to_have_count(6)
    drag(page, "1.jpg", "4.jpg")
    assert there(gateway) == ids
    page.get_by_role("button", name="Arranged").click()
    wait_for(lambda: names(page) == [f"{number}.jpg" for number in range(6)], what="the own order")
    with page.context.new_page() as other:
        show(other, gateway)
        other.get_by_role("button", name="Arranged").click()
        drag(page, "4.jpg", "1.jpg")
        expected = [f"{number}.jpg" for number in (0, 4, 1, 2, 3, 5)]
        for each in (page, other):
            wait_for(lambda own=each: names(own) == expected, what="the new order")  # type: ignore[misc]
    assert there(gateway) == [ids[number] for number in (0, 4, 1, 2, 3, 5)]
    assert page.get_by_role("dialog").count() == 0
    page.locator(".tile[title='0.jpg']").focus()
    for key in ("m", "End", "Escape", "m", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    wait_for(lambda: names(page)[:3] == ["4.jpg", "0.jpg", "1.jpg"], what="the picture that keys moved")
    expect(page.get_by_role("status").filter(has_text="Dropped.")).to_be_attached()
    expect_focus(page, "0.jpg")
    assert there(gateway)[:3] == [ids[4], ids[0], ids[1]]
    page.route("**/api/dreams/*/images", lambda route: route.abort())
    drag(page, "5.jpg", "4.jpg")
    expect(page.get_by_role("alert")).to_contain_text("Not moved: the connection was lost")
    assert names(page)[0] == "4.jpg"


def test_a_drag_ends_with_its_client_or_its_button(page: Page, gateway: Gateway) -> None:
    """The token may end during a drag, and a button may be released where the page does not see it."""
    stored(gateway, 4)
    show(page, gateway)
    page.get_by_role("button", name="Arranged").click()
    wait_for(lambda: names(page) == [f"{number}.jpg" for number in range(4)], what="the own order")
    box = page.locator(".tile[title='3.jpg']").bounding_box()
    assert box is not None
    point = {"clientX": box["x"] + 50, "clientY": box["y"] + 50, "pointerId": 1, "isPrimary": True, "bubbles": True}
    moved = point | {"clientX": box["x"] + 90}
    tile, ghost = page.locator(".tile[title='3.jpg']"), page.locator(".ghost")
    tile.dispatch_event("pointerdown", point | {"pointerType": "mouse", "buttons": 1})
    tile.dispatch_event("pointermove", moved | {"pointerType": "mouse", "buttons": 0})
    expect(ghost).to_be_hidden()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 50)
    expect(ghost).to_be_visible()
    page.locator("dream-gallery").evaluate("gallery => gallery.removeAttribute('token')")
    expect(ghost).to_be_hidden()
    page.mouse.up()
    expect(page.locator(".tile")).to_have_count(0)


# --- a screen reader, and many pictures


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_gallery_and_the_viewer(browser: Browser, gateway: Gateway, scheme: Any) -> None:
    """With failed, waiting and selected tiles, a message, and the facts open."""
    stored(gateway, 5)
    gateway.add_image(ImageState.PENDING, number=11)
    gateway.add_image(ImageState.FAILED, number=12)
    with browser.new_context(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as context:
        page = context.new_page()
        show(page, gateway)
        expect(page.locator(".tile")).to_have_count(7)
        page.locator(".tile[title='3.jpg']").click(modifiers=["Control"])
        page.keyboard.press("Delete")
        page.locator(".tile[title='2.jpg']").click(modifiers=["Control"])
        assert Axe().run(page).response["violations"] == []
        page.keyboard.press("Escape")
        page.locator(".tile[title='2.jpg']").click()
        page.get_by_role("button", name="Facts").click()
        expect(page.get_by_role("region", name="Facts")).to_contain_text("200 × 100")
        assert Axe().run(page).response["violations"] == []


def add_rows(gateway: Gateway, count: int) -> None:
    """Finished pictures that share four files."""
    stored(gateway, len(SHAPES))
    with gateway.database.begin() as session:
        session.add(DreamTask(id="many", name=PROCESS_IMAGES, args=[]))
        session.flush()
        rows = []
        for number in range(count - len(SHAPES)):
            width, height = SHAPES[number % len(SHAPES)]
            url = f"http://127.0.0.1:{gateway.port}/media/{KEY.replace('0' * 32, f'{number % len(SHAPES):032x}')}"
            place = {"dream_id": DREAM, "task_id": "many", "index": number, "position": 10 + number}
            name = {"storage_key": f"dreams/20260101/{number + 99:032x}.jpg", "filename": f"many{number}.jpg"}
            facts = {"state": ImageState.COMPLETED, "url": url, "width_px": width, "height_px": height}
            rows.append(place | name | facts | {"placeholder": THUMBHASH, "dominant_colour": "#635850"})
        session.execute(insert(DreamImage), rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_thousand_pictures_are_scrolled_with_few_tiles(page: Page, gateway: Gateway) -> None:
    """To the end by scrolling: pages are read on the way, the document stays small, and frames stay as short."""
    add_rows(gateway, 5000)
    show(page, gateway)
    expect(page.locator(".tile img[data-loaded]").first).to_be_visible()
    most, first, last = page.evaluate(
        """async () => {
          const gallery = document.querySelector("dream-gallery");
          let most = 0;
          const scroll = async (byPx) => {
            const began = performance.now();
            scrollBy(0, byPx);
            await new Promise(requestAnimationFrame);
            most = Math.max(most, gallery.shadowRoot.querySelectorAll(".tile").length);
            return performance.now() - began;
          };
          const median = async () => {
            const frames = [];
            for (let frame = 0; frame < 40; frame++) frames.push(await scroll(frame < 20 ? 100 : -100));
            return frames.sort((one, other) => one - other)[20];
          };
          const first = await median();
          while (gallery.client.hasMore || scrollY + innerHeight < document.documentElement.scrollHeight - 1) {
            await scroll(4000);
          }
          scrollBy(0, -9000);
          return [most, first, await median()];
        }"""
    )
    assert len(names(page)) == 5000
    assert most < 120
    assert last < 3 * first + 20
    page.locator(".tile").last.focus()
    page.keyboard.press("Home")
    expect_focus(page, names(page)[0])

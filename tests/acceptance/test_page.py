"""The page in a real browser, on a real gateway; a publisher plays the worker."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from dream.db import images
from dream.db.dreams import give_to
from dream.imaging.media_types import HAS_HEIF
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.states import ImageState
from dream.settings import Settings
from dream.storage import Storage
from tests.acceptance.conftest import quiet
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.gateway import DREAM, KEY, OWNER, STRANGER, Gateway, auth, emptied, running, token
from tests.store_proxy import StoreFault, StoreProxy

#: A PNG of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
NASTY = "<img src=x onerror=document.title='broken'>.png"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may say nothing wrong on its console."""
    with quiet(browser.new_page()) as page:
        yield page


@pytest.fixture(scope="module")
def shared(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), servers) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    return emptied(shared)


def open_page(page: Page, gateway: Gateway, own: str) -> None:
    page.goto(f"http://127.0.0.1:{gateway.port}/#dream={DREAM}&token={own}")


def open_live(page: Page, gateway: Gateway) -> None:
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")


def send(page: Page, *files: Any) -> None:
    """Choose files in the page: names of small pictures, or whole files."""
    chosen = [
        {"name": each, "mimeType": "image/png", "buffer": PNG} if isinstance(each, str) else each for each in files
    ]
    page.locator("dream-upload input").first.set_input_files(chosen)


def tiles(page: Page) -> Locator:
    return page.locator("dream-gallery .tile")


def rows(page: Page) -> Locator:
    """The files in the panel: those that are not accepted."""
    return page.locator("dream-upload .file")


def problems(page: Page) -> list[str]:
    """Name and reason of each file that was refused."""
    refused = rows(page).and_(page.locator("[data-state=refused]"))
    return [re.sub(r"\n+", ": ", text) for text in refused.locator(".text").all_inner_texts()]


def expect_problems(page: Page, *expected: str) -> None:
    """Wait until exactly these files are refused. A row stands there while the server has not answered yet."""
    wait_for(lambda: set(problems(page)) == set(expected), what=f"the refusal of {expected}")


def batches(page: Page) -> Locator:
    return page.locator("dream-upload .batch")


def names(page: Page) -> list[str]:
    """The file names in the gallery's order, also of those far from the screen."""
    found: list[str] = page.locator("dream-gallery").evaluate("gallery => gallery.list.map((each) => each.filename)")
    return found


def finish(gateway: Gateway) -> None:
    """Finish the one picture that waits, as a worker does: its file is there before its row says so."""
    settings = gateway.settings
    with gateway.database.begin() as session:
        (row,) = images.list_images(session, DREAM)
        row.state = ImageState.PROCESSING
        key = f"{row.storage_key}.png"
        Storage(settings).put_bytes(settings.s3_bucket, key, PNG)
        row.storage_key, row.bucket, row.url = key, settings.s3_bucket, f"http://127.0.0.1:{gateway.port}/media/{key}"
        row.width_px = row.height_px = 1
        row.found_focus = [0.25, 0.75]
        row.size_bytes = len(PNG)
        session.flush()
        row.state = ImageState.COMPLETED
        image: Any = {"id": row.id, "url": row.url, "position": row.position}
    done = ImageUpdate(
        dream_id=DREAM, status=UpdateStatus.COMPLETED, images=(image,), task_id=row.task_id, message="Done."
    )
    assert gateway.publisher.publish(done)


def task_of(gateway: Gateway) -> str:
    with gateway.database.read() as session:
        return str(images.list_images(session, DREAM)[0].task_id)


def test_a_picture_is_uploaded_watched_and_deleted(page: Page, gateway: Gateway) -> None:
    """Choose a file; see it wait, be tried again, become a thumbnail without a reload; delete it. Names are never HTML.

    The thumbnail shows the focal point, and the panel counts the picture and goes by itself.
    """
    open_live(page, gateway)
    assert "token" not in page.url
    send(page, NASTY)
    tile = tiles(page)
    expect(tile).to_have_count(1)
    expect(tile).to_contain_text(NASTY)
    expect(tile.locator("strong")).to_have_text("Waiting")
    task_id = task_of(gateway)
    half = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, progress=50, task_id=task_id)
    assert gateway.publisher.publish(half)
    expect(tile.locator("[role=progressbar]")).to_have_attribute("aria-valuenow", "50")
    waiting: Any = {"attempt": 2, "max_retries": 5, "retry_at": time.time() + 60}
    assert gateway.publisher.publish(replace(half, progress=None, **waiting))
    for place in (tile.locator("strong"), batches(page).locator(".note")):
        expect(place).to_have_text(re.compile(r"^Trying again in \d+ sec, 2 of 5$"))
    finish(gateway)
    expect(tile).to_have_attribute("data-state", "completed")
    expect(tile.locator("img")).to_have_js_property("naturalWidth", 1)
    expect(tile.locator("img")).to_have_css("object-position", "25% 75%")
    expect(batches(page).locator(".title")).to_have_text("1 picture added")
    expect(batches(page)).to_have_count(0, timeout=15_000)
    tile.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(tile).to_have_count(0)
    invitation = page.get_by_role("heading", name="Add your first pictures")
    expect(invitation).to_be_visible(timeout=20_000)  # an undo is no longer offered
    expect(page).to_have_title("dream")


@pytest.mark.slow
def test_the_page_comes_back_after_a_restart_with_what_it_missed(
    page: Page, servers: dict[str, str], tmp_path: Path
) -> None:
    """The gateway is killed and comes back: the page says so, connects by itself and gets the events in between.

    A file that was chosen meanwhile is sent then.
    """
    environment = {**environment_in(tmp_path, servers), "DREAM_PORT": "0"}
    with Gateway(environment, prepare(settings_from(environment)), tmp_path) as gateway:
        emptied(gateway)
        open_live(page, gateway)
        gateway.process.kill()
        gateway.process.wait(10)
        expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        expect(page.locator("#connection")).to_have_text("Connection lost, trying again…")
        send(page, "later.png")
        expect(batches(page).locator(".note")).to_contain_text("The connection was lost; trying again in")
        missed = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, message="While you were away.")
        assert gateway.publisher.publish(missed)
        (tmp_path / "again").mkdir()
        with Gateway({**environment, "DREAM_PORT": str(gateway.port)}, gateway.settings, tmp_path / "again"):
            expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=20_000)
            expect(page.locator("#news")).to_have_text("While you were away.")
            expect(tiles(page)).to_contain_text(["later.png"], timeout=20_000)


@pytest.mark.slow
def test_a_token_of_somebody_else_is_told_so(page: Page, gateway: Gateway) -> None:
    """A refused token shows the reason and no upload; entering a right one by hand connects; signing out forgets it."""
    open_page(page, gateway, token(STRANGER))
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("does not own")
    expect(page.locator("#work")).to_be_hidden()
    expect(page.get_by_label("Token")).to_be_focused()
    own = token(jti="of-this-page")
    page.get_by_label("Token").fill("Bearer " + own)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#entry")).to_be_hidden()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#news")).to_have_text("You are signed out.")
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.get_by_label("Token").input_value() == ""
    assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own)).status_code == 401
    page.reload()
    expect(page.locator("#entry")).to_be_visible()


def test_what_comes_after_signing_out_is_not_shown(page: Page, gateway: Gateway) -> None:
    """The answer that was awaited when the user signed out (twice) harms nothing: the entry stands there, ready."""
    held: list[Route] = []
    page.route("**/images?*", lambda route: held.append(route))
    open_page(page, gateway, token(jti="signs-out-early"))
    expect(page.locator("#connection")).to_have_text("Live")
    wait_for(lambda: page.evaluate("1") and len(held) > 0, what="the reading of the list")
    page.locator("#sign-out").evaluate("button => [button.click(), button.click()]")
    expect(page.locator("#news")).to_have_text("You are signed out.")
    with page.expect_response("**/images?*"):
        held[0].continue_()
    page.unroute_all()
    expect(page.get_by_label("Token")).to_be_focused()
    expect(page.locator("#work")).to_be_hidden()


def test_a_page_without_storage_signs_out(page: Page, gateway: Gateway) -> None:
    """A browser may refuse it. A problem of the last visit is not said at the next one."""
    page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    page.route("**/images?*", lambda route: route.fulfill(status=500, json={"error": "the database is away"}))
    open_page(page, gateway, token(jti="without-storage"))
    expect(page.locator("#problem")).to_contain_text("The database is away", ignore_case=True)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#news")).to_have_text("You are signed out.")
    expect(page.locator("#entry")).to_be_visible()
    page.unroute("**/images?*")
    open_page(page, gateway, token(jti="next"))
    expect(page.get_by_role("heading", name="Add your first pictures")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_bad_files_are_named_and_the_others_go_on(page: Page, servers: dict[str, str], tmp_path: Path) -> None:
    """Each refused file stands there with its sentence until it is dismissed; the others are uploaded.

    What is too large is not sent at all; the page and the server say it in the same words. No news replace an error.
    """
    with running(tmp_path, servers, DREAM_MAX_UPLOAD_BYTES="200000") as gateway:
        emptied(gateway)
        open_live(page, gateway)
        large = {"name": NASTY, "mimeType": "image/png", "buffer": b"x" * 3_000_000}
        send(page, "a.png", large, {"name": "none.png", "mimeType": "image/png", "buffer": b""}, "b.png")
        expect(tiles(page)).to_have_count(2)
        expect(rows(page)).to_have_count(2)
        expected = {f"{NASTY}: The file has 3.0 MB, more than the 0.2 MB allowed", "none.png: The file is empty"}
        expect_problems(page, *expected)
        expect(batches(page)).to_contain_text("2 pictures")
        film = {"files": ("film.mp4", b"x" * 3_000_000)}
        refused = gateway.http.post(f"/api/dreams/{DREAM}/images", files=film, headers=auth()).json()["refused"]
        assert f"{NASTY}: {refused[0]['error']}".lower() in {each.lower() for each in problems(page)}
        assert gateway.publisher.publish(
            ImageUpdate(dream_id=DREAM, status=UpdateStatus.COMPLETED, message="the app says so")
        )
        expect(page.locator("#news")).to_have_text("The app says so")
        expect_problems(page, *expected)
        page.get_by_role("button", name="Dismiss none.png").click()
        expect(rows(page)).to_have_count(1)
        expect(page.get_by_role("button", name=f"Dismiss {NASTY}")).to_be_focused()
        expect(page).to_have_title("dream")


@pytest.mark.slow
def test_a_selection_of_any_number_is_sent_and_two_selections_are_two_bars(page: Page, gateway: Gateway) -> None:
    """Many files go in several requests; each selection has a bar of its own."""
    open_live(page, gateway)
    send(page, *(f"{n}.png" for n in range(105)), {"name": "none.png", "mimeType": "image/png", "buffer": b""})
    send(page, "another.png")
    expect(batches(page).locator(".title")).to_have_text(["105 pictures", "1 picture"], timeout=20_000)
    accepted = ["Processing · 0 of 105 ready", "Processing · 0 of 1 ready"]
    expect(batches(page).locator(".note")).to_have_text(accepted, timeout=20_000)
    expect_problems(page, "none.png: The file is empty")
    with gateway.database.read() as session:
        rows_there = images.list_images(session, DREAM)
        assert len(rows_there) == 106
        assert len({row.task_id for row in rows_there}) < 20


@pytest.mark.slow
def test_an_answer_that_is_lost_doubles_no_picture(page: Page, gateway: Gateway) -> None:
    """The request arrives, its answer does not: the page sends it again under the same name until it is told."""
    open_live(page, gateway)
    lost: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method != "POST" or lost:
            route.continue_()
            return
        lost.append(route.request.headers["idempotency-key"])
        route.fetch()
        route.abort("connectionreset")

    page.route("**/images", lose)
    with page.expect_request(lambda request: request.method == "POST" and bool(lost)) as again:
        send(page, "once.png")
    expect(tiles(page)).to_have_count(1)
    expect(rows(page)).to_have_count(0)
    assert again.value.headers["idempotency-key"] == lost[0]
    with gateway.database.read() as session:
        assert len(images.list_images(session, DREAM)) == 1


@pytest.mark.slow
def test_a_file_that_cannot_be_read_any_more_does_not_hold_up_the_others(
    page: Page, gateway: Gateway, tmp_path: Path
) -> None:
    """It is deleted between its choice and its request; the page said that the connection was lost, for ever."""
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path in paths:
        path.write_bytes(PNG)
    open_live(page, gateway)
    page.context.set_offline(True)
    page.locator("dream-upload input").first.set_input_files(paths)
    expect(rows(page)).to_have_count(3)
    paths[1].unlink()
    page.context.set_offline(False)
    expect(tiles(page)).to_have_count(2, timeout=20_000)
    expect_problems(page, "1.jpg: The file was changed or moved; choose it again")
    assert sorted(names(page)) == ["0.jpg", "2.jpg"]


#: A script: the first upload arrives whole; its answer is lost, and a file is gone by then.
LOSE_FIRST_ANSWER = """
const send = XMLHttpRequest.prototype.send;
let isFirst = true;
XMLHttpRequest.prototype.send = function (body) {
  if (isFirst && body instanceof FormData) {
    isFirst = false;
    const loaded = this.onload;
    this.onload = async () => {
      await removeFile();
      Object.defineProperty(this, "status", { value: 0 });
      loaded();
    };
  }
  return send.call(this, body);
};
"""


@pytest.mark.slow
def test_files_that_the_server_may_have_are_not_sent_again_without_one_that_cannot_be_read(
    page: Page, gateway: Gateway, tmp_path: Path
) -> None:
    """The server has accepted all three, and its answer was lost; the user decides."""
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path in paths:
        path.write_bytes(PNG)
    page.expose_function("removeFile", lambda: paths[1].unlink())
    page.add_init_script(LOSE_FIRST_ANSWER)
    open_live(page, gateway)
    page.locator("dream-upload input").first.set_input_files(paths)
    expect_problems(page, "1.jpg: The file was changed or moved; choose it again")
    expect(rows(page).and_(page.locator("[data-state=failed]"))).to_have_count(2)
    assert len(listed(gateway)) == 3


@pytest.mark.slow
def test_a_file_is_cancelled_and_a_closed_page_tells_what_it_had_not_sent(browser: Browser, gateway: Gateway) -> None:
    """At the next visit, and once."""
    context = browser.new_context()
    page = context.new_page()
    open_live(page, gateway)
    page.route("**/images", lambda route: None if route.request.method == "POST" else route.continue_())
    large = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": b"x" * 1_100_000} for n in range(4)]
    send(page, *large)
    expect(rows(page)).to_have_count(4)
    page.get_by_role("button", name="Do not send 3.png").click()
    expect(rows(page)).to_have_count(3)
    page.close()
    again = context.new_page()
    open_live(again, gateway)
    expect(rows(again)).to_have_count(1)
    expect_problems(again, "0.png, 1.png, 2.png: Not sent when the page was closed; add them again")
    again.reload()
    expect(again.locator("#connection")).to_have_attribute("data-state", "live")
    expect(rows(again)).to_have_count(0)
    context.close()


@pytest.mark.slow
def test_a_new_token_tells_what_the_last_one_had_not_sent(page: Page, gateway: Gateway) -> None:
    """After signing out nothing is told, because the user has agreed."""
    page.route("**/images", lambda route: None if route.request.method == "POST" else route.continue_())
    large = {"mimeType": "image/png", "buffer": b"x" * 1_100_000}
    open_live(page, gateway)
    send(page, large | {"name": "first.png"})
    expect(rows(page)).to_have_count(1)
    open_page(page, gateway, token(jti="second"))
    expect_problems(page, "first.png: Not sent when the page was closed; add them again")
    send(page, large | {"name": "second.png"})
    expect(rows(page)).to_have_count(2)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#news")).to_have_text("You are signed out.")
    open_page(page, gateway, token(jti="third"))
    expect(page.get_by_role("heading", name="Add your first pictures")).to_be_visible()
    expect(rows(page)).to_have_count(0)


@pytest.mark.slow
def test_a_file_that_failed_is_sent_again_though_its_bar_is_gone(page: Page, gateway: Gateway) -> None:
    """The bar counts the file as failed; the button of its row sends it, and hands the focus on."""
    said = {"error": "the token has expired", "code": "token_rejected"}
    page.route(
        "**/images",
        lambda route: route.fulfill(status=401, json=said) if route.request.method == "POST" else route.continue_(),
    )
    open_live(page, gateway)
    send(page, "again.png")
    expect(rows(page)).to_have_attribute("data-state", "failed")
    expect(batches(page).locator(".title")).to_have_text("0 added, 1 failed")
    batches(page).get_by_role("button", name="Dismiss").click()
    expect(batches(page)).to_have_count(0)
    page.unroute("**/images")
    page.get_by_role("button", name="Send again.png again").click()
    expect(tiles(page)).to_contain_text(["again.png"])
    expect(page.get_by_role("button", name="Add pictures")).to_be_focused()


def drop_at(page: Page, selector: str, *, own: bool = False) -> bool:
    """Drop a file there; whether the page took the event, which else makes the browser open the file."""
    taken: bool = page.evaluate(
        """([selector, own]) => {
            const target = document.querySelector(selector);
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["bytes"], "dropped.png", { type: "image/png" }));
            const how = { dataTransfer, bubbles: true, cancelable: true, composed: true };
            const fire = (name) => !target.dispatchEvent(new DragEvent(name, how));
            if (own) fire("dragstart");
            const taken = ["dragenter", "dragover", "drop"].map(fire).every(Boolean);
            if (own) fire("dragend");
            return taken;
        }""",
        [selector, own],
    )
    return taken


@pytest.mark.slow
def test_a_file_is_taken_wherever_it_is_dropped_or_pasted(page: Page, gateway: Gateway) -> None:
    """Without a dream nothing is sent, and the page is not left; no picture of the page is sent again."""
    page.goto(f"http://127.0.0.1:{gateway.port}/")
    for place in ("body", "h1", "#dream", "#entry"):
        assert drop_at(page, place), place
    open_live(page, gateway)
    assert drop_at(page, "header")
    expect(tiles(page)).to_have_count(1)
    assert drop_at(page, "dream-gallery", own=True)
    assert drop_at(page, "main")
    expect(tiles(page)).to_have_count(2)
    page.evaluate(
        """() => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File(["bytes"], "pasted.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    expect(tiles(page)).to_have_count(3)
    assert names(page)[0] == "pasted.png"


@pytest.mark.slow
def test_a_real_file_is_taken_wherever_it_falls(page: Page, gateway: Gateway, tmp_path: Path) -> None:
    """As a browser drops it, from a folder: beside the zone it opened the file, and the page was left."""
    path = tmp_path / "from a folder.png"
    path.write_bytes(PNG)
    wire = page.context.new_cdp_session(page)

    def drop_real() -> None:
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            wire.send("Input.dispatchDragEvent", {"type": kind, "x": 5, "y": 5, "data": data})

    page.goto(f"http://127.0.0.1:{gateway.port}/")
    drop_real()
    open_live(page, gateway)
    drop_real()
    expect(tiles(page)).to_have_count(1)
    assert names(page) == ["from a folder.png"]
    assert page.url.startswith(f"http://127.0.0.1:{gateway.port}/")


def test_the_picker_offers_what_the_server_takes(page: Page, gateway: Gateway) -> None:
    """HEIC by its types and its extensions, where the decoder for it is installed."""
    open_live(page, gateway)
    expect(page.locator("dream-upload input").first).to_have_attribute("accept", re.compile("image"))
    offered = (page.locator("dream-upload input").first.get_attribute("accept") or "").split(",")
    assert {"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"} <= set(offered)
    heif = {"image/heic", "image/heif", ".heic", ".heif"}
    assert heif & set(offered) == (heif if HAS_HEIF else set())


@pytest.mark.slow
def test_a_long_list_is_read_in_pages_and_an_event_asks_for_its_own_pictures(page: Page, gateway: Gateway) -> None:
    """Of 430 pictures a page reads 100, more as one scrolls; then an event reads one upload and no more."""
    for number in range(430):
        gateway.add_image(ImageState.FAILED, number=number)
    asked: list[str] = []
    page.on(
        "request",
        lambda request: asked.append(request.url.partition("/images")[2]) if "/api/dreams" in request.url else None,
    )
    open_live(page, gateway)
    wait_for(lambda: len(names(page)) >= 100, what="the first page")
    assert asked[0] == "?limit=100&order=newest"
    assert len(names(page)) < 430

    def scrolled() -> bool:
        page.mouse.wheel(0, 20_000)
        return len(names(page)) == 430

    wait_for(scrolled, what="the whole list")
    assert names(page) == [f"{n}.jpg" for n in reversed(range(430))]
    asked.clear()
    for task, last in (("task7", 5), ("task429", 1)):
        with page.expect_response(lambda answer, task=task: f"task_id={task}&" in answer.url):  # type: ignore[misc]
            for progress in range(last):
                half = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, progress=progress, task_id=task)
                assert gateway.publisher.publish(half)
    assert len(names(page)) == 430
    assert set(asked) == {"?task_id=task7&limit=100", "?task_id=task429&limit=100"}
    assert len(asked) <= 6


@pytest.mark.slow
def test_pictures_that_come_and_go_elsewhere_come_and_go_here(browser: Browser, page: Page, gateway: Gateway) -> None:
    """Two browsers on one dream: what one sends or deletes the other shows, in its order."""
    for number in (1, 2):
        gateway.add_image(number=number)
    open_live(page, gateway)
    wait_for(lambda: names(page) == ["2.jpg", "1.jpg"], what="the list")
    with browser.new_context() as other, other.new_page() as second:
        open_live(second, gateway)
        wait_for(lambda: names(second) == ["2.jpg", "1.jpg"], what="the list")
        send(second, "3.png")
        expect(tiles(second)).to_have_count(3)
        begun = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, task_id=listed(gateway)[0].task_id)
        assert gateway.publisher.publish(begun)  # as a worker does
        wait_for(lambda: names(page) == names(second) == ["3.png", "2.jpg", "1.jpg"], what="the new picture")
        with gateway.database.begin() as session:
            (first,) = [row for row in images.list_images(session, DREAM) if row.filename == "1.jpg"]
            gone: Any = {"id": 12345, "url": first.url, "position": 1}
            first.state = ImageState.DELETING
        update = ImageUpdate(dream_id=DREAM, status=UpdateStatus.DELETE_COMPLETED, images=(gone,), task_id="d")
        assert gateway.publisher.publish(update)
        wait_for(lambda: names(page) == names(second) == ["3.png", "2.jpg"], what="the deletion")
    with gateway.database.begin() as session:
        for image in images.list_images(session, DREAM):
            image.state = ImageState.DELETING
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.COMPLETED))
    expect(page.get_by_role("heading", name="Add your first pictures")).to_be_visible()


def listed(gateway: Gateway) -> list[Any]:
    with gateway.database.read() as session:
        return list(images.list_images(session, DREAM))


def test_offline_is_told_and_healed(page: Page, gateway: Gateway) -> None:
    """The page has the events of that time afterwards."""
    open_live(page, gateway)
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator("#connection")).to_have_text("You are offline", timeout=15_000)
    gateway.add_image(number=5)
    gateway.publish()
    page.context.set_offline(False)
    expect(page.locator("#connection")).to_have_text("Live", timeout=15_000)
    wait_for(lambda: names(page) == ["5.jpg"], what="the picture")


def test_the_page_speaks_chinese_to_a_chinese_browser(browser: Browser, gateway: Gateway) -> None:
    with browser.new_context(locale="zh-CN") as context, context.new_page() as page:
        open_live(page, gateway)
        expect(page.locator("#connection")).to_have_text("实时")
        expect(page.locator("html")).to_have_attribute("lang", "zh")
        expect(page.get_by_role("heading", name="添加第一批图片")).to_be_visible()
        send(page, {"name": "none.png", "mimeType": "image/png", "buffer": b""})
        expect(rows(page)).to_have_count(1)
        expect_problems(page, "none.png: 文件是空的")


def test_the_page_is_small(page: Page, gateway: Gateway) -> None:
    """Script and style of `/` are at most 60 KB on the wire; the page names every module, so all come at once."""
    wire, sizes = page.context.new_cdp_session(page), dict[str, float]()
    kinds: dict[str, str] = {}
    wire.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))
    wire.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    wire.send("Network.enable")
    open_live(page, gateway)
    page.wait_for_load_state("networkidle")
    loaded = [sizes[each] for each, kind in kinds.items() if kind in ("Script", "Stylesheet") and each in sizes]
    assert len(loaded) >= 10
    assert sum(loaded) <= 60_000
    scripts = page.evaluate("performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname)")
    named = page.locator("link[rel=modulepreload]").evaluate_all(
        "links => links.map((each) => each.getAttribute('href'))"
    )
    modules = {each for each in scripts if each.startswith("/static/") and each.endswith(".js")}
    assert set(named) == modules - {"/static/page.js"}


# --- pictures that were seen


@contextmanager
def behind_a_proxy(
    environment: dict[str, str], settings: Settings, folder: Path, **changes: str
) -> Iterator[tuple[Gateway, StoreFault]]:
    """A gateway with one picture, whose browsers read the store through a proxy that counts what they ask for."""
    upstream = urlsplit(settings.s3_endpoint_url or "")
    store, asked = StoreProxy((upstream.hostname or "", upstream.port or 0)), StoreFault("GET", KEY)
    folder.mkdir()
    source = folder / "picture"
    source.write_bytes(PNG)
    Storage(settings).put_file(settings.s3_bucket, KEY, source, "image/png")
    own = {**environment, "DREAM_S3_ENDPOINT_URL": f"http://127.0.0.1:{store.port}", **changes}
    try:
        with store.failing(asked), Gateway(own, settings, folder) as gateway:
            image_id = gateway.add_image()
            with gateway.database.begin() as session:
                give_to(session, DREAM, OWNER, "olga")
                image = images.by_id(session, DREAM, image_id)
                assert image is not None
                image.url = f"http://127.0.0.1:{gateway.port}/media/{KEY}"
            yield gateway, asked
    finally:
        store.close()


@pytest.mark.parametrize(
    ("mode", "forget_s", "questions"),
    [
        ("redirect", "300", 1),
        pytest.param("redirect", "0", 2, marks=pytest.mark.slow),
        pytest.param("proxy", "300", 1, marks=pytest.mark.slow),
        ("proxy", "0", 2),
    ],
)
def test_a_second_view_costs_no_byte_of_picture(
    browser: Browser,
    environment: dict[str, str],
    settings: Settings,
    tmp_path: Path,
    mode: str,
    forget_s: str,
    questions: int,
) -> None:
    """In a new tab, too; where the answer is not kept, the gateway is asked again and the store is not."""
    context = browser.new_context()
    received: list[float] = []
    changes = {"DREAM_MEDIA_MODE": mode, "DREAM_MEDIA_FORGET_S": forget_s}
    its_url = "X-Amz-Signature" if mode == "redirect" else f"/media/{KEY}"
    with behind_a_proxy(environment, settings, tmp_path / "own", **changes) as (gateway, asked):
        for view in (1, 2):
            page = context.new_page()
            wire, of_pictures = context.new_cdp_session(page), set[str]()

            def note(event: dict[str, Any], of_pictures: set[str] = of_pictures) -> None:
                if its_url in event["response"]["url"]:
                    of_pictures.add(event["requestId"])

            def count(event: dict[str, Any], of_pictures: set[str] = of_pictures) -> None:
                if event["requestId"] in of_pictures:
                    received.append(event["encodedDataLength"])

            wire.on("Network.responseReceived", note)
            wire.on("Network.loadingFinished", count)
            wire.send("Network.enable")
            open_page(page, gateway, token())
            expect(tiles(page).locator("img")).to_be_visible(timeout=20_000)
            wait_for(lambda own=page, n=view: own.evaluate("1") and len(received) == n, what="the picture")  # type: ignore[misc]
            page.close()
        # The gateway writes a line after the browser has the answer.
        wait_for(lambda: gateway.log.read_text().count(f"/media/{KEY}") >= questions, what="the lines of the log")
        log = gateway.log.read_text()
        assert asked.hits == 1
        assert received[0] > 0
        # A 304 has no body: the browser receives headers.
        is_unchanged = f'/media/{KEY}", "status": 304' in log
        assert is_unchanged == (received[1] > 0) == (mode == "proxy" and forget_s == "0")
        assert log.count(f"/media/{KEY}") == questions
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "access"), [("proxy", "signed"), ("redirect", "signed"), ("proxy", "owner")])
def test_the_page_shows_pictures_for_which_it_needs_a_permission(
    page: Page, environment: dict[str, str], settings: Settings, tmp_path: Path, mode: str, access: str
) -> None:
    """By signed URLs, or by its cookie; without one the picture's URL alone is 404."""
    changes = {"DREAM_MEDIA_MODE": mode, "DREAM_MEDIA_ACCESS": access, "DREAM_MEDIA_KEYS": "a key of the tests " * 2}
    with behind_a_proxy(environment, settings, tmp_path / "own", **changes) as (gateway, _):
        assert gateway.http.get(f"/media/{KEY}").status_code == 404
        open_page(page, gateway, token())
        image = tiles(page).locator("img")
        expect(image).to_be_visible(timeout=20_000)
        wait_for(lambda: image.evaluate("image => image.complete && image.naturalWidth") == 1, what="the picture")


@pytest.mark.slow
def test_a_deleted_picture_is_gone_after_the_forget_time_for_who_had_it(
    browser: Browser, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """At once for everybody else."""
    with (
        behind_a_proxy(environment, settings, tmp_path / "own", DREAM_MEDIA_FORGET_S="2") as (gateway, _),
        browser.new_context() as context,
    ):
        address = f"http://127.0.0.1:{gateway.port}/media/{KEY}"
        had_it, had_it_not = context.new_page(), browser.new_page()

        def status(page: Page) -> int:
            answer = page.goto(address)
            return answer.status if answer else 0

        assert status(had_it) == 200
        (listed,) = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
        deletion = gateway.http.delete(f"/api/dreams/{DREAM}/images/{listed['id']}", headers=auth())
        assert deletion.status_code == 202
        assert status(had_it_not) == 404
        had_it_not.close()
        wait_for(lambda: status(had_it) == 404, timeout_s=10, what="the end of the forget time")

"""The page in a real browser, on a real gateway; a publisher plays the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from dream.db import images
from dream.db.dreams import give_to
from dream.imaging.limits import HAS_HEIF
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.states import ImageState
from dream.settings import Settings
from dream.storage import Storage
from tests.conftest import wait_for
from tests.gateway import DREAM, KEY, OWNER, STRANGER, Gateway, auth, token
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
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def gateway(
    environment: dict[str, str], settings_of: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> Iterator[Gateway]:
    with Gateway(environment, settings_of(environment), tmp_path) as gateway:
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
        yield gateway


def open_page(page: Page, gateway: Gateway, own: str) -> None:
    page.goto(f"http://127.0.0.1:{gateway.port}/#dream={DREAM}&token={own}")


def finish(gateway: Gateway, settings: Settings) -> None:
    """Finish the one picture that waits, as a worker does."""
    with gateway.database.begin() as session:
        (row,) = images.list_images(session, DREAM)
        row.state = ImageState.PROCESSING
        key = f"{row.storage_key}.png"
        row.storage_key, row.bucket, row.url = key, settings.s3_bucket, f"http://127.0.0.1:{gateway.port}/media/{key}"
        row.width_px = row.height_px = 1
        row.found_focus = [0.25, 0.75]
        row.size_bytes = len(PNG)
        session.flush()
        row.state = ImageState.COMPLETED
        image: Any = {"id": row.id, "url": row.url, "position": row.position}
    Storage(settings).put_bytes(settings.s3_bucket, key, PNG)
    done = ImageUpdate(
        dream_id=DREAM, status=UpdateStatus.COMPLETED, images=(image,), task_id=row.task_id, message="Done."
    )
    assert gateway.publisher.publish(done)


def test_a_picture_is_uploaded_watched_and_deleted(
    page: Page, gateway: Gateway, settings: Settings, tmp_path: Path
) -> None:
    """Choose a file; see it wait, progress, become a thumbnail without a reload; delete it. Names are never HTML.

    The thumbnail shows the focal point.
    """
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    assert "token" not in page.url
    page.set_input_files("#files", {"name": NASTY, "mimeType": "image/png", "buffer": PNG})
    tile = page.locator("#pictures li")
    expect(tile).to_have_count(1)
    expect(tile.locator(".name")).to_have_text(NASTY)
    expect(tile.locator(".state")).to_have_text("waiting")
    with gateway.database.read() as session:
        task_id = images.list_images(session, DREAM)[0].task_id
    half = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, progress=50, task_id=task_id)
    assert gateway.publisher.publish(half)
    expect(tile.locator("progress")).to_have_attribute("value", "50")
    finish(gateway, settings)
    expect(tile.locator(".state")).to_have_text("ready")
    expect(page.locator("#pictures img")).to_have_js_property("naturalWidth", 1)
    expect(page.locator("#pictures img")).to_have_css("object-position", "25% 75%")
    expect(page.locator("#message")).to_have_text("Done.")
    page.get_by_role("button", name="Delete").click()
    expect(tile).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    expect(page).to_have_title("dream · pictures")


def test_the_page_comes_back_after_a_restart_with_what_it_missed(
    page: Page, gateway: Gateway, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """The gateway goes away and comes back: the page reconnects by itself and gets the events in between."""
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    gateway.process.terminate()
    gateway.process.wait(10)
    expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
    missed = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, message="While you were away.")
    assert gateway.publisher.publish(missed)
    (tmp_path / "again").mkdir()
    with Gateway({**environment, "DREAM_PORT": str(gateway.port)}, settings, tmp_path / "again"):
        expect(page.locator("#connection")).to_have_text("live", timeout=20_000)
        expect(page.locator("#message")).to_have_text("While you were away.")


def test_a_token_of_somebody_else_is_told_so(page: Page, gateway: Gateway) -> None:
    """A refused token shows the reason and no upload; entering a right one by hand connects."""
    open_page(page, gateway, token(STRANGER))
    expect(page.get_by_role("alert")).to_contain_text("does not own")
    expect(page.locator("#work")).to_be_hidden()
    page.get_by_label("Token").fill("Bearer " + token())
    page.get_by_role("button", name="Connect").click()
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_refused_upload_says_why(page: Page, gateway: Gateway) -> None:
    """The server's sentence reaches the person."""
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    page.set_input_files("#files", {"name": "empty.png", "mimeType": "image/png", "buffer": b""})
    expect(page.locator("#message")).to_contain_text("Not uploaded: ")
    expect(page.locator("#message")).to_contain_text("empty")


def refusals(page: Page) -> list[str]:
    return [text.replace("\n", ": ") for text in page.locator("#refused li p").all_inner_texts()]


def test_bad_files_are_named_and_the_others_go_on(
    page: Page, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Each refused file stands there with its sentence until it is dismissed; the others are uploaded.

    What is too large is not sent at all; the page and the server say it in the same words.
    """
    (tmp_path / "limited").mkdir()
    with Gateway({**environment, "DREAM_MAX_UPLOAD_BYTES": "200000"}, settings, tmp_path / "limited") as gateway:
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
        open_page(page, gateway, token())
        expect(page.locator("#connection")).to_have_text("live")
        page.set_input_files(
            "#files",
            [
                {"name": "a.png", "mimeType": "image/png", "buffer": PNG},
                {"name": NASTY, "mimeType": "image/png", "buffer": b"x" * 3_000_000},
                {"name": "none.png", "mimeType": "image/png", "buffer": b""},
                {"name": "b.png", "mimeType": "image/png", "buffer": PNG},
            ],
        )
        expect(page.locator("#pictures li")).to_have_count(2)
        expect(page.locator("#refused li")).to_have_count(2)
        assert refusals(page) == [
            f"{NASTY}: The file has 3.0 MB, more than the 0.2 MB allowed",
            "none.png: The file is empty",
        ]
        expect(page.locator("#message")).to_have_text("2 files uploaded; being processed.")
        film = {"files": ("film.mp4", b"x" * 3_000_000)}
        refused = gateway.http.post(f"/api/dreams/{DREAM}/images", files=film, headers=auth()).json()["refused"]
        assert refusals(page)[0].lower() == f"{NASTY}: {refused[0]['error']}".lower()
        page.get_by_role("button", name="Dismiss none.png").click()
        assert len(refusals(page)) == 1
        expect(page).to_have_title("dream · pictures")


def test_a_selection_of_any_number_is_sent(page: Page, gateway: Gateway) -> None:
    """More files than one upload may have go in several."""
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    many: list[Any] = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": PNG} for n in range(105)]
    page.set_input_files("#files", [*many, {"name": "none.png", "mimeType": "image/png", "buffer": b""}])
    expect(page.locator("#pictures li")).to_have_count(105, timeout=20_000)
    expect(page.locator("#message")).to_have_text("105 files uploaded; being processed.")
    assert refusals(page) == ["none.png: The file is empty"]


def drop_at(page: Page, selector: str, *, own: bool = False) -> bool:
    """Drop a file there; whether the page took the event, which else makes the browser open the file."""
    taken: bool = page.evaluate(
        """([selector, own]) => {
            const target = document.querySelector(selector);
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["bytes"], "dropped.png", { type: "image/png" }));
            const fire = (name) =>
                !target.dispatchEvent(new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }));
            if (own) fire("dragstart");
            const taken = ["dragenter", "dragover", "drop"].map(fire).every(Boolean);
            if (own) fire("dragend");
            return taken;
        }""",
        [selector, own],
    )
    return taken


def test_a_file_that_is_dropped_beside_the_zone_does_not_leave_the_page(page: Page, gateway: Gateway) -> None:
    """Without a dream nothing is taken; then a file is uploaded wherever it falls, but no picture of the page."""
    page.goto(f"http://127.0.0.1:{gateway.port}/")
    for place in ("body", "h1", "#dream", "#entry"):
        assert drop_at(page, place), place
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    assert drop_at(page, "header")
    expect(page.locator("#pictures li .name")).to_have_text(["dropped.png"])
    assert drop_at(page, "#pictures li", own=True)
    assert drop_at(page, "#token")
    expect(page.locator("#pictures li .name")).to_have_text(["dropped.png"] * 2)
    with gateway.database.read() as session:
        assert len(images.list_images(session, DREAM)) == 2


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
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    drop_real()
    expect(page.locator("#pictures li .name")).to_have_text(["from a folder.png"])
    assert page.url.startswith(f"http://127.0.0.1:{gateway.port}/")


def test_a_message_that_is_stale_goes(page: Page, gateway: Gateway, settings: Settings) -> None:
    """A line about work goes with the work, even if its last event was missed; a line about its end stays a while."""
    page.clock.install()
    open_page(page, gateway, token())
    expect(page.locator("#connection")).to_have_text("live")
    page.set_input_files("#files", {"name": "a.png", "mimeType": "image/png", "buffer": PNG})
    expect(page.locator("#message")).to_have_text("1 file uploaded; being processed.")
    with gateway.database.read() as session:
        task_id = images.list_images(session, DREAM)[0].task_id
    again = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, message="trying again in 60 s", task_id=task_id)
    assert gateway.publisher.publish(again)
    expect(page.locator("#message")).to_have_text("trying again in 60 s")
    gateway.publish(message="another task works")
    expect(page.locator("#message")).to_have_text("another task works")
    assert gateway.publisher.publish(again)
    expect(page.locator("#message")).to_have_text("trying again in 60 s")
    finish(gateway, settings)
    expect(page.locator("#message")).to_have_text("Done.")
    page.clock.fast_forward(8_000)
    expect(page.locator("#message")).to_have_text("Done.")
    page.clock.fast_forward(7_000)
    expect(page.locator("#message")).to_have_text("")


def test_the_picker_offers_what_the_server_takes(page: Page, gateway: Gateway) -> None:
    """HEIC by its types and its extensions, where the decoder for it is installed."""
    page.goto(f"http://127.0.0.1:{gateway.port}/")
    offered = (page.get_attribute("#files", "accept") or "").split(",")
    assert {"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"} <= set(offered)
    heif = {"image/heic", "image/heif", ".heic", ".heif"}
    assert heif & set(offered) == (heif if HAS_HEIF else set())


def add_many(gateway: Gateway, count: int) -> None:
    """Finished pictures of other days; their files are not in the store."""
    for number in range(count):
        gateway.add_image(ImageState.FAILED, number=number)


def test_a_long_list_is_read_in_pages_and_an_event_asks_for_its_own_pictures(page: Page, gateway: Gateway) -> None:
    """Of 230 pictures a page shows 100, more as one scrolls; then an event reads one upload and no more."""
    add_many(gateway, 230)
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url.partition("/images")[2]) if "/api/" in request.url else None
    )
    open_page(page, gateway, token())
    tiles = page.locator("#pictures li")
    expect(tiles).to_have_count(100)
    assert asked == ["?limit=100"]
    for count in (200, 230):
        page.locator("#more").scroll_into_view_if_needed()
        expect(tiles).to_have_count(count)
    expect(page.locator("#more")).to_be_hidden()
    assert page.locator("#pictures .name").all_text_contents() == [f"{n}.jpg" for n in range(230)]
    asked.clear()
    for task, last in (("task7", 5), ("task229", 1)):
        with page.expect_response(lambda answer, task=task: f"task_id={task}&" in answer.url):  # type: ignore[misc]
            for progress in range(last):
                half = ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, progress=progress, task_id=task)
                assert gateway.publisher.publish(half)
    expect(tiles).to_have_count(230)
    assert set(asked) == {"?task_id=task7&limit=100", "?task_id=task229&limit=100"}
    assert len(asked) <= 6


def test_pictures_that_come_and_go_elsewhere_come_and_go_here(page: Page, gateway: Gateway) -> None:
    """Events of other pages' uploads and deletions change the list in its order, without a reload."""
    for number in (1, 3):
        gateway.add_image(number=number)
    open_page(page, gateway, token())
    names = page.locator("#pictures .name")
    expect(names).to_have_text(["1.jpg", "3.jpg"])
    gateway.add_image(ImageState.PENDING, number=2)
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.PROCESSING, task_id="task2"))
    expect(names).to_have_text(["1.jpg", "2.jpg", "3.jpg"])
    with gateway.database.begin() as session:
        first, *_ = images.list_images(session, DREAM)
        gone: Any = {"id": 12345, "url": first.url, "position": 1}
        first.state = ImageState.DELETING
    update = ImageUpdate(dream_id=DREAM, status=UpdateStatus.DELETE_COMPLETED, images=(gone,), task_id="d")
    assert gateway.publisher.publish(update)
    expect(names).to_have_text(["2.jpg", "3.jpg"])
    with gateway.database.begin() as session:
        for image in images.list_images(session, DREAM):
            image.state = ImageState.DELETING
    assert gateway.publisher.publish(
        ImageUpdate(dream_id=DREAM, status=UpdateStatus.COMPLETED, message="The app says so.")
    )
    expect(names).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


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
    [("redirect", "300", 1), ("redirect", "0", 2), ("proxy", "300", 1), ("proxy", "0", 2)],
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
            expect(page.locator("#pictures img")).to_be_visible()
            wait_for(lambda own=page, n=view: own.evaluate("1") and len(received) == n, what="the picture")  # type: ignore[misc]
            page.close()
        log = gateway.log.read_text()
        assert asked.hits == 1
        assert received[0] > 0
        # A 304 has no body: the browser receives headers.
        is_unchanged = f'/media/{KEY}", "status": 304' in log
        assert is_unchanged == (received[1] > 0) == (mode == "proxy" and forget_s == "0")
        assert log.count(f"/media/{KEY}") == questions
    context.close()


@pytest.mark.parametrize(("mode", "access"), [("proxy", "signed"), ("redirect", "signed"), ("proxy", "owner")])
def test_the_page_shows_pictures_for_which_it_needs_a_permission(
    page: Page, environment: dict[str, str], settings: Settings, tmp_path: Path, mode: str, access: str
) -> None:
    """By signed URLs, or by its cookie; without one the picture's URL alone is 404."""
    changes = {"DREAM_MEDIA_MODE": mode, "DREAM_MEDIA_ACCESS": access, "DREAM_MEDIA_KEYS": "a key of the tests " * 2}
    with behind_a_proxy(environment, settings, tmp_path / "own", **changes) as (gateway, _):
        assert gateway.http.get(f"/media/{KEY}").status_code == 404
        open_page(page, gateway, token())
        image = page.locator("#pictures img")
        expect(image).to_be_visible()
        wait_for(lambda: image.evaluate("image => image.complete && image.naturalWidth") == 1, what="the picture")


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

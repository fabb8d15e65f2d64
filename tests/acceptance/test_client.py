"""`dream-client.js` in a real browser, on a real gateway: the module by itself, without dream's page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, Page, Route, expect

from dream.db import images
from dream.db.dreams import give_to
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.states import ImageState
from dream.settings import Settings
from tests.conftest import wait_for
from tests.gateway import DREAM, OTHER_DREAM, OWNER, Gateway, emptied, running, token

STATIC = Path(__file__).parents[2] / "dream/gateway/static"

#: A class's public members, also those of the instance.
_MEMBERS = """async ([url, name, dream, token]) => {
  const module = await import(url);
  const client = new module.DreamClient({ dream, token });
  const one = { DreamClient: client, UploadQueue: client.uploads, DreamError: new module.DreamError("no", 400) }[name];
  const names = [...Object.getOwnPropertyNames(Object.getPrototypeOf(one)), ...Object.getOwnPropertyNames(one)];
  return [...names, ...Object.getOwnPropertyNames(module[name])];
}"""


@pytest.fixture
def gateway(
    environment: dict[str, str], settings_of: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> Iterator[Gateway]:
    with Gateway(environment, settings_of(environment), tmp_path) as gateway:
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
        yield gateway


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """An empty page of the gateway's origin, with a connected `client`."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{gateway.port}/healthz")
    page.evaluate(
        """async ([url, dream, token]) => {
          const { DreamClient } = await import(url);
          globalThis.seen = [];
          globalThis.client = new DreamClient({ dream, token: async () => seen.push("token") && token });
          client.addEventListener("pictures", ({ detail }) => seen.push([[...detail.changed], [...detail.removed]]));
          client.connect();
        }""",
        ["/static/dream-client.js", DREAM, token()],
    )
    yield page
    page.close()


def ids(page: Page) -> list[int]:
    found: list[int] = page.evaluate("client.sorted().map((each) => each.id)")
    return found


@pytest.mark.slow
def test_the_store_is_true_after_events_pages_and_a_restart(page: Page, gateway: Gateway) -> None:
    """Newest first, in pages; an event reads its upload; deletions go; what was missed while away is there."""
    wait_for(lambda: page.evaluate("client.state") == "live", what="the socket")
    first = [gateway.add_image(ImageState.COMPLETED, number=number) for number in range(3)]
    gateway.publish(message="an application's own update")
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.COMPLETED))
    wait_for(lambda: sorted(ids(page)) == first, what="the pictures")
    assert page.evaluate("id => client.pictures.get(id).filename", first[2]) == "2.jpg"
    assert not page.evaluate("client.hasMore")
    page.evaluate("id => client.remove(id)", first[0])
    assert sorted(ids(page)) == first[1:]
    assert page.evaluate("id => seen.filter(([, removed]) => removed?.includes?.(id)).length", first[0]) == 1


def test_a_deleted_picture_does_not_come_back_by_an_older_answer(page: Page, gateway: Gateway) -> None:
    """The list was read before the deletion, and arrives after it."""
    first, second = (gateway.add_image(number=number) for number in range(2))
    read_again(gateway)
    wait_for(lambda: ids(page) == [second, first], what="the pictures")
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/images?*", lambda route: held.append((route, route.fetch())))
    read_again(gateway)
    wait_for(lambda: page.evaluate("1") and held, what="the answer")
    page.evaluate("id => client.remove(id)", first)
    route, answer = held[0]
    route.fulfill(response=answer)
    page.evaluate("client.loadMore()")  # its turn is after the reading
    assert ids(page) == [second]


def read_again(gateway: Gateway) -> None:
    """An event that names no task: pages read the list again."""
    assert gateway.publisher.publish(ImageUpdate(dream_id=DREAM, status=UpdateStatus.COMPLETED))


@pytest.mark.slow
def test_a_reading_that_hangs_or_brings_another_answer_is_done_again(page: Page, gateway: Gateway) -> None:
    """A connection may be dead though nobody has said so, and a Wi-Fi may answer in place of the gateway."""
    wait_for(lambda: page.evaluate("client.state") == "live", what="the socket")
    page.evaluate(
        "() => { const own = AbortSignal.timeout; AbortSignal.timeout = (ms) => own.call(AbortSignal, ms / 100) }"
    )
    told = "client.problem?.message"
    page.route("**/images?*", lambda route: route.fulfill(content_type="text/html", body="<p>Sign in to the Wi-Fi"))
    read_again(gateway)
    wait_for(lambda: page.evaluate(told) == "the server answered 200", what="the words for another answer")
    page.route("**/images?*", lambda _: None)
    wait_for(lambda: page.evaluate(told) == "the connection was lost", what="the end of a dead connection")
    page.unroute("**/images?*")
    there = gateway.add_image()
    wait_for(lambda: ids(page) == [there] and not page.evaluate(told), what="the picture")


def test_one_renewal_serves_all_whose_token_was_refused(page: Page) -> None:
    """Calls at the same time, the socket, and an answer that comes late; a renewal that fails is no token."""
    given = page.evaluate(
        """async ([dream, token]) => {
          const answers = ["refused", new Error("away"), token];
          let given = 0;
          const get = () => { const next = answers[given++]; if (next.message) throw next; return next; };
          const other = new client.constructor({ dream, token: get });
          const read = () => other.call("GET", other.path()).then(({ body }) => body.length, (error) => error.message);
          let release;
          const held = new Promise((resolve) => (release = resolve));
          const late = other.authorized((used) => held.then(() => ({ status: used === "Bearer refused" ? 401 : 200 })));
          const failed = await read();
          const listed = await Promise.all([read(), read(), read()]);
          release();
          const { status } = await late;
          other.connect();
          await new Promise((live) => other.addEventListener("state", () => other.state === "live" && live()));
          other.close();
          return [failed, listed, status, given];
        }""",
        [DREAM, token()],
    )
    assert given == ["away", [0, 0, 0], 200, 3]


# --- files

_ADD = "(name) => void client.uploads.add([new File(['bytes'], name, { type: 'image/png' })])"


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["slow.uploads.cancel(slow.uploads.items[0])", "slow.close()"])
def test_a_file_is_not_sent_if_it_was_stopped_before_its_request(page: Page, stop: str) -> None:
    """The token for the request was still being fetched."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.evaluate(
        """async ([dream, token]) => {
          const { DreamClient } = await import("/static/dream-client.js");
          globalThis.waiting = [];
          const later = () => new Promise((done) => waiting.push(() => done(token)));
          globalThis.slow = new DreamClient({ dream, token: later });
          slow.uploads.add([new File(["bytes"], "stopped.png", { type: "image/png" })]);
        }""",
        [DREAM, token()],
    )
    page.evaluate(stop)
    page.evaluate("waiting.forEach((give) => give())")
    page.evaluate("slow.call('GET', slow.path())")
    assert sent == []


@pytest.mark.slow
def test_a_closed_client_keeps_nothing_of_its_files(page: Page, gateway: Gateway) -> None:
    """Addresses of previews are given back, also if a picture was stored before it was read; so is the lock."""
    page.evaluate(
        """() => {
          globalThis.previews = new Set();
          const { createObjectURL, revokeObjectURL } = URL;
          URL.createObjectURL = (file) => previews.add(createObjectURL.call(URL, file)) && [...previews].at(-1);
          URL.revokeObjectURL = (address) => void (previews.delete(address) && revokeObjectURL.call(URL, address));
        }"""
    )
    held: list[Route] = []
    page.route("**/images?task_id=*", lambda route: held.append(route))
    page.evaluate(_ADD, "quick.png")
    wait_for(lambda: page.evaluate("previews.size") == 1 and held, what="the first reading of an upload")
    for state in (ImageState.PROCESSING, ImageState.COMPLETED):
        with gateway.database.begin() as session:
            (row,) = images.list_images(session, DREAM)
            row.state, row.url = state, f"{gateway.settings.media_url}/quick.png"
    held[0].continue_()
    page.unroute("**/images?task_id=*")
    wait_for(lambda: page.evaluate("previews.size") == 0, what="the end of the preview")
    page.evaluate(_ADD, "slow.png")
    wait_for(lambda: page.evaluate("client.sorted()[0].preview"), what="a picture with its preview")
    page.evaluate("client.close()")
    assert page.evaluate("[previews.size, client.sorted()[0].preview ?? null]") == [0, None]
    locks = "navigator.locks.query().then(({ held }) => held.length)"
    wait_for(lambda: page.evaluate(locks) == 0, what="the end of the lock")


def test_a_date_in_retry_after_is_no_wait_without_end(page: Page) -> None:
    """Proxies may name a date; the page then waits as without the header."""
    answers = [{"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, "json": {"error": "busy"}}]
    page.route("**/images", lambda route: route.fulfill(**answers.pop()) if answers else route.continue_())  # type: ignore[arg-type]
    waits_ms: Any = page.evaluate(
        """() => new Promise((done) => {
          const { uploads } = client;
          uploads.addEventListener("change", () => uploads.pause && done(uploads.pause.until - Date.now()));
          client.addEventListener("pictures", () => client.pictures.size && done("no wait"));
          uploads.add([new File(["bytes"], "a.png", { type: "image/png" })]);
        })"""
    )
    assert 0 < waits_ms < 2_000


_SEND = """([sizes]) => {
  const own = setTimeout;
  globalThis.setTimeout = (work, ms) => own(work, ms / 50);
  const names = Object.entries(sizes);
  client.uploads.add(names.map(([name, size]) => new File([name.repeat(size)], name, { type: "image/png" })));
}"""


def sent_keys(page: Page, lost: dict[int, int]) -> list[str]:
    """The keys of the uploads from now on. Of some, by number, the answer is lost and another status comes."""
    keys: list[str] = []

    def answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        status = lost.get(len(keys) - 1)
        if status is None:
            route.continue_()
            return
        if keys.index(keys[-1]) == len(keys) - 1:
            route.fetch()
        route.fulfill(status=status, body="")

    page.route("**/images", answer)
    return keys


def stored_names(gateway: Gateway) -> list[str]:
    with gateway.database.read() as session:
        return sorted(row.filename for row in images.list_images(session, DREAM))


def test_a_file_whose_answer_was_lost_takes_no_other_into_its_request(page: Page, gateway: Gateway) -> None:
    """A small one before a large one goes alone; a small one after that has not been sent under its key."""
    keys = sent_keys(page, {0: 502})
    page.evaluate(_SEND, [{"a": 10, "b": 1_000_001, "c": 10}])
    wait_for(lambda: page.evaluate("client.uploads.items.length") == 0, what="the answers")
    assert stored_names(gateway) == ["a", "b", "c"]
    assert len(keys) == 4
    assert len(set(keys)) == 3


def test_files_that_failed_together_are_sent_again_under_their_key(page: Page, gateway: Gateway) -> None:
    """The server had accepted them: a retry stores none twice. Without one of them they are another request."""
    keys = sent_keys(page, dict.fromkeys([*range(6), *range(7, 13)], 504))
    failed = "client.uploads.items.filter((each) => each.state === 'failed').length"
    page.evaluate(_SEND, [{"a": 10, "b": 10}])
    wait_for(lambda: page.evaluate(failed) == 2, what="the failure")
    page.evaluate("client.uploads.retry(client.uploads.items[1])")
    wait_for(lambda: page.evaluate("client.uploads.items.length") == 0, what="the answer")
    assert stored_names(gateway) == ["a", "b"]
    assert len(set(keys)) == 1
    page.evaluate(_SEND, [{"c": 10, "d": 10}])
    wait_for(lambda: page.evaluate(failed) == 2, what="the next failure")
    page.evaluate("client.uploads.dismiss(client.uploads.items[0]), client.uploads.retry(client.uploads.items[0])")
    wait_for(lambda: page.evaluate("client.uploads.items.length") == 0, what="the answer")
    assert len(set(keys)) == 3


def test_a_batch_without_a_file_is_none(page: Page) -> None:
    page.evaluate("() => void client.uploads.add([new File([], 'none.png', { type: 'image/png' })])")
    refused = "client.uploads.items.every((each) => each.state === 'refused')"
    wait_for(lambda: page.evaluate(refused), what="the refusal")
    assert page.evaluate("client.uploads.batches.length") == 0


# --- the elements


@pytest.fixture
def host(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """A page of another application, without the module."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{gateway.port}/healthz")
        yield page


_EMBED = """async ([name, dream, token, hidden]) => {
  const element = document.createElement(name);
  element.setAttribute("dream", dream);
  element.setAttribute("token", token);
  element.hidden = hidden ?? false;
  document.body.append(element);
  await import("/static/dream-client.js");
}"""


@pytest.mark.slow
def test_an_element_begins_with_one_client(host: Page) -> None:
    """Its attributes were there before the module."""
    asked: list[str] = []
    host.on("request", lambda request: asked.append(request.url) if "client-settings" in request.url else None)
    host.evaluate(_EMBED, ["dream-gallery", DREAM, token()])
    live = "document.querySelector('dream-gallery').client.state === 'live'"
    wait_for(lambda: host.evaluate(live), what="the socket")
    assert len(asked) == 1


def test_a_file_goes_to_the_element_on_which_it_falls(host: Page, gateway: Gateway) -> None:
    """A page may have two dreams. A text that somebody writes keeps what is pasted into it."""
    with gateway.database.begin() as session:
        give_to(session, OTHER_DREAM, OWNER, "olga")
    for dream in (DREAM, OTHER_DREAM):
        host.evaluate(_EMBED, ["dream-upload", dream, token()])
    found = host.evaluate(
        """() => {
          const elements = [...document.querySelectorAll("dream-upload")];
          const editor = Object.assign(document.createElement("div"), { contentEditable: "true" });
          document.body.append(editor);
          const fire = (kind, name, place) => {
            const data = new DataTransfer();
            data.items.add(new File(["bytes"], "a.png", { type: "image/png" }));
            const how = { dataTransfer: data, clipboardData: data, bubbles: true, cancelable: true, composed: true };
            const event = new kind(name, how);
            place.dispatchEvent(event);
            return [event.defaultPrevented, ...elements.map(({ client }) => client.uploads.batches.length)];
          };
          const drops = [elements[1], elements[0], document.body].map((place) => fire(DragEvent, "drop", place));
          return [...drops, ...[document.body, editor].map((place) => fire(ClipboardEvent, "paste", place))];
        }"""
    )
    assert found == [[True, 0, 1], [True, 1, 1], [True, 2, 1], [True, 3, 1], [False, 3, 1]]


@pytest.mark.slow
def test_a_hidden_gallery_reads_and_draws_nothing_more(host: Page, gateway: Gateway) -> None:
    """Without a size all pictures would be near the screen."""
    for number in range(120):
        gateway.add_image(ImageState.FAILED, number=number)
    host.evaluate(_EMBED, ["dream-gallery", DREAM, token(), True])
    state = """async () => {
      const gallery = document.querySelector("dream-gallery");
      for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
      return [gallery.client.pictures.size, gallery.shadowRoot.querySelectorAll(".tile").length];
    }"""
    wait_for(lambda: host.evaluate(state)[0] > 0, what="the first page")
    assert host.evaluate(state) == [100, 0]
    host.evaluate("() => void (document.querySelector('dream-gallery').hidden = false)")
    expect(host.locator(".tile").first).to_be_visible()


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A web server with the files of a folder; its origin."""
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_site_embeds_both_elements_with_two_lines(
    browser: Browser, servers: dict[str, str], tmp_path: Path
) -> None:
    """The lines of docs/page.md, on a site of `DREAM_ALLOWED_ORIGINS`: its page lists, follows events and sends."""
    text = (STATIC.parents[2] / "docs/page.md").read_text(encoding="utf-8")
    lines = text.partition("```html\n")[2].partition("```")[0]
    folder = tmp_path / "site"
    with (
        site(folder) as origin,
        running(tmp_path, servers, DREAM_ALLOWED_ORIGINS=origin) as gateway,
        browser.new_context() as context,
        context.new_page() as page,
    ):
        emptied(gateway).add_image(ImageState.FAILED, number=1)
        own = f"http://127.0.0.1:{gateway.port}"
        (folder / "index.html").write_text(lines.replace("https://gateway.example", own).replace("eyJ…", token()))
        page.goto(origin)
        tiles = page.locator("dream-gallery .tile")
        expect(tiles).to_have_count(1)
        expect(page.get_by_role("heading", name="Add your first pictures")).to_be_hidden()
        page.locator("dream-upload input").first.set_input_files(
            {"name": "2.png", "mimeType": "image/png", "buffer": b"no picture, but a file"}
        )
        expect(tiles).to_have_count(2)
        assert page.evaluate("document.querySelector('dream-upload').client.pictures.size") == 2


def test_english_and_chinese_have_the_same_texts(page: Page) -> None:
    """The same keys, and the same values to fill in."""
    texts: Any = page.evaluate("import('/static/client/words.js').then((module) => module.words)")
    assert list(texts["en"]) == list(texts["zh"])
    for key, english in texts["en"].items():
        for one in english.split("|"):
            assert set(re.findall(r"{\w+}", one)) == set(re.findall(r"{\w+}", texts["zh"][key])), key


def test_the_types_name_what_the_module_has(page: Page) -> None:
    text = (STATIC / "dream-client.d.ts").read_text(encoding="utf-8")
    exported = page.evaluate("import('/static/dream-client.js').then(Object.keys)")
    assert set(re.findall(r"^export class (\w+)", text, re.MULTILINE)) == set(exported)
    silent = {"length", "name", "prototype", "stack", "message"}
    for name in ("DreamClient", "UploadQueue", "DreamError"):
        body = re.search(rf"export class {name} .*?\n}}", text, re.DOTALL)
        assert body is not None
        declared = set(re.findall(r"^  (?:static |readonly )*(\w+)[(:<?]", body[0], re.MULTILINE))
        there: Any = page.evaluate(_MEMBERS, ["/static/dream-client.js", name, DREAM, token()])
        assert declared - {"addEventListener"} == set(there) - silent

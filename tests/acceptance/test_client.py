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
from playwright.sync_api import Browser, Page, expect

from dream.db.dreams import give_to
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.states import ImageState
from dream.settings import Settings
from tests.conftest import wait_for
from tests.gateway import DREAM, OWNER, Gateway, emptied, running, token

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
    silent = {"length", "name", "prototype", "stack", "message"}
    for name in ("DreamClient", "UploadQueue", "DreamError"):
        body = re.search(rf"export class {name} .*?\n}}", text, re.DOTALL)
        assert body is not None
        declared = set(re.findall(r"^  (?:static |readonly )*(\w+)[(:<?]", body[0], re.MULTILINE))
        there: Any = page.evaluate(_MEMBERS, ["/static/dream-client.js", name, DREAM, token()])
        assert declared - {"addEventListener"} == set(there) - silent

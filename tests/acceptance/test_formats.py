"""Formats by `Accept` in a real browser, from a real gateway; the test plays the worker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from playwright.sync_api import Browser, Response
from sqlalchemy import select

from dream.actors.inline import run_recorded
from dream.db import DreamTask
from dream.messages.registry import MAKE_VARIANT
from dream.producer import NOT_SENT, Producer
from dream.settings import Settings
from tests.conftest import wait_for
from tests.gateway import DREAM, Gateway
from tests.pictures import noise

_PAGE = "<img id=whole src='{url}'><img id=card src='{url}?v=card'>"


@pytest.mark.slow
def test_a_browser_gets_avif_and_keeps_it(
    browser: Browser,
    environment: dict[str, str],
    settings: Settings,
    settings_of: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    """The picture as it is stored is shown first; once the AVIF is made, Chromium shows it and asks no more."""
    own = {
        **environment,
        "DREAM_PORT": "0",
        "DREAM_NEGOTIATE": "yes",
        "DREAM_MEDIA_MODE": "proxy",
        "DREAM_LAZY_VARIANTS": "card:64x64:cover",
        "DREAM_VARIANT_WAIT_S": "0.2",
    }
    with Gateway(own, settings_of(own), tmp_path) as gateway:
        producer = Producer(gateway.settings)
        # In a thread, because Playwright has an event loop in this one.
        with ThreadPoolExecutor(1) as thread:
            url = thread.submit(upload, producer, settings).result()
        address = f"http://127.0.0.1:{gateway.port}{urlsplit(url).path}"
        assert view(browser, address) == {"image/jpeg"}
        with producer.database.read() as session:
            asked = session.scalars(select(DreamTask.id).where(DreamTask.name == MAKE_VARIANT)).all()
        assert len(asked) == 2
        for task_id in asked:
            run_recorded(gateway.settings, producer, task_id)
        producer.database.dispose()
        assert view(browser, address, times=2) == {"image/avif"}
        # One request for each picture and view, but none for the last view. A line is written once its answer is out.
        path = urlsplit(address).path
        wait_for(lambda: gateway.log.read_text().count(path) >= 2 + 2, what="the lines of the log")
        assert gateway.log.read_text().count(path) == 2 + 2


def upload(producer: Producer, settings: Settings) -> str:
    order = producer.order_upload(DREAM, [{"name": "a.jpg", "data": noise(400, 300)}], delivery=NOT_SENT)
    producer.accept(order)
    [url] = run_recorded(settings, producer, order.task_id)
    return str(url)


def view(browser: Browser, address: str, *, times: int = 1) -> set[str]:
    """The media types of the pictures that a new browser shows, which looks at a page so often."""
    shown: list[Response] = []
    context = browser.new_context(bypass_csp=True)

    def note(answer: Response) -> None:
        shown.append(answer)

    try:
        for _ in range(times):
            page = context.new_page()
            # The cache of a page without an address is its own.
            page.goto(urljoin(address, "/healthz"))
            page.on("response", note)
            page.set_content(_PAGE.format(url=address))
            page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")
            sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert sizes[0] == 400
            page.close()
        return {answer.headers["content-type"] for answer in shown}
    finally:
        context.close()

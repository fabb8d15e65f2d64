"""Pictures in a real browser: it loads the width that it needs, nothing jumps, and a placeholder comes first."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Browser, Page, Route, expect

from dream.actors.inline import run_recorded
from dream.db import images
from dream.db.dreams import give_to
from dream.messages.registry import MAKE_VARIANT
from dream.messages.variants import ask_for, task_of
from dream.pictures import Picture
from dream.pictures.thumbhash import data_url
from dream.producer import NOT_SENT, Producer
from dream.variants import VariantSpec
from tests.gateway import DREAM, OWNER, Gateway, running, token

WIDTHS = (400, 800, 1600)
PAGE = """<!doctype html><style>body { margin: 0 } img { max-width: 100%%; height: auto; display: block }</style>
%s<p id="below">Below the picture.</p>"""
#: The colours of a picture's quarters.
COLOURS = ((20, 60, 220), (200, 30, 40), (240, 230, 60), (30, 140, 70))


def photo(width: int = 2000, height: int = 1500) -> bytes:
    """A JPEG with four colours under some noise, which is no drawing."""
    image = Image.new("RGB", (2, 2))
    image.putdata(COLOURS)
    image = image.resize((width, height), Image.Resampling.NEAREST)
    grain = Image.effect_noise((width, height), 10).convert("RGB")
    file = io.BytesIO()
    ImageChops.add(image, grain, scale=1, offset=-128).save(file, "JPEG", quality=90)
    return file.getvalue()


class Site(NamedTuple):
    gateway: Gateway
    #: Of 2000 pixels, and of 500 pixels with every width as AVIF too.
    picture: Picture
    small: Picture


@pytest.fixture(scope="module")
def site(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway, and pictures with their ladders. Tests name it before the browser, whose loop runs in this thread."""
    with running(tmp_path_factory.mktemp("site"), servers) as gateway:
        address = f"http://127.0.0.1:{gateway.port}"
        settings = gateway.settings.model_copy(update={"widths": WIDTHS, "gateway_url": address})
        producer = Producer(settings)
        files = [{"name": "four.jpg", "data": data} for data in (photo(), photo(500, 375))]
        order = producer.order_upload(DREAM, files, delivery=NOT_SENT)
        assert producer.accept(order)
        run_recorded(settings, producer, order.task_id)
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
            _, small = images.list_images(session, DREAM)
        for spec in (VariantSpec.rung(400), None):
            task_id, arguments = task_of(small, ask_for(small, spec, "avif"))
            assert producer.submit(MAKE_VARIANT, arguments, task_id=task_id, delivery=NOT_SENT)
            run_recorded(settings, producer, task_id)
        pictures = map(Picture.of, producer.list_images(DREAM))
        producer.close()
        yield Site(gateway, *pictures)


@contextmanager
def window(browser: Browser, width: int = 400, ratio: float = 1) -> Iterator[Page]:
    """An empty window of that width in CSS pixels, with nothing in its cache."""
    page = browser.new_page(viewport={"width": width, "height": 900}, device_scale_factor=ratio)
    yield page
    page.close()


@contextmanager
def held(page: Page) -> Iterator[Callable[[], None]]:
    """Hold pictures back until the returned function is called."""
    routes: list[Route] = []
    is_open = False
    # A picture that is asked for later comes at once.
    page.route("**/media/**", lambda route: route.continue_() if is_open else routes.append(route))

    def let_go() -> None:
        nonlocal is_open
        is_open = True
        for route in routes:
            route.continue_()

    yield let_go


def seen(page: Page, selector: str) -> Image.Image:
    """The element as the screen shows it."""
    return Image.open(io.BytesIO(page.locator(selector).screenshot(animations="disabled"))).convert("RGB")


def quarters_of(image: Image.Image) -> list[tuple[float, ...]]:
    """The mean colour in the middle of each quarter."""
    width, height = image.size
    middles = [(x * width // 8, y * height // 8) for y in (1, 5) for x in (1, 5)]
    return [tuple(ImageStat.Stat(image.crop((x, y, x + width // 4, y + height // 4))).mean) for x, y in middles]


def is_like(found: list[tuple[float, ...]], most: float) -> bool:
    return all(
        abs(one - other) <= most
        for mean, colour in zip(found, COLOURS, strict=True)
        for one, other in zip(mean, colour, strict=True)
    )


def loaded(page: Page, selector: str = "img") -> None:
    """Wait for a picture. Playwright's `wait_for_function` is an eval, which the own page's policy refuses."""
    image = page.locator(selector).first
    expect(image).not_to_have_js_property("naturalWidth", 0)
    expect(image).to_have_js_property("complete", True)
    image.evaluate("image => image.decode()")  # a browser may show it a frame later


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "ratio", "chosen"), [(400, 1, 400), (400, 2, 800), (1600, 1, 1600), (1600, 2, 2000), (200, 1, 400)]
)
def test_a_browser_loads_the_width_that_it_needs(
    site: Site, browser: Browser, width: int, ratio: float, chosen: int
) -> None:
    """One file and no other: the narrowest that is sharp on this screen."""
    with window(browser, width, ratio) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/media/" in request.url else None)
        page.set_content(PAGE % site.picture.html(sizes="100vw"))
        loaded(page)
        assert site.picture.srcset is not None
        urls = {int(each.split()[1][:-1]): each.split()[0] for each in site.picture.srcset.split(", ")}
        assert sorted(urls) == [*WIDTHS, 2000]
        assert asked == [urls[chosen]]
        assert page.evaluate("document.querySelector('img').currentSrc") == urls[chosen]


@pytest.mark.slow
def test_a_browser_takes_the_better_format(site: Site, browser: Browser) -> None:
    with window(browser, 400) as page:
        html = site.small.html()
        assert html.startswith("<picture>")
        page.set_content(PAGE % html)
        loaded(page)
        assert page.evaluate("document.querySelector('img').currentSrc").endswith("_w400.avif")
        assert page.locator("img").bounding_box() == {"x": 0, "y": 0, "width": 400, "height": 300}
        assert is_like(quarters_of(seen(page, "img")), 25)


def test_nothing_jumps_and_a_placeholder_comes_first(site: Site, browser: Browser) -> None:
    """While the file is on its way, its place has its size and nearly its colours."""
    with window(browser) as page, held(page) as let_go:
        page.set_content(PAGE % site.picture.html())
        page.evaluate(
            "new PerformanceObserver((list) => (window.shifts = (window.shifts ?? 0) + list.getEntries().length))"
            ".observe({ type: 'layout-shift', buffered: true })"
        )
        place = page.locator("img").bounding_box()
        below = page.locator("#below").bounding_box()
        assert place is not None
        assert (place["width"], place["height"]) == (400, 300)
        assert not page.evaluate("document.querySelector('img').complete")
        assert is_like(quarters_of(seen(page, "img")), 90)
        let_go()
        loaded(page)
        assert is_like(quarters_of(seen(page, "img")), 25)
        assert page.locator("img").bounding_box() == place
        assert page.locator("#below").bounding_box() == below
        assert page.evaluate("window.shifts ?? 0") == 0


def test_the_own_page_loads_a_small_width_behind_a_placeholder(site: Site, browser: Browser) -> None:
    """Its script draws the same placeholder as Python."""
    with window(browser, 1000) as page, held(page) as let_go:
        page.goto(f"http://127.0.0.1:{site.gateway.port}/#dream={DREAM}&token={token()}")
        tile = f"#tile{site.picture.id}"
        frame = page.locator(tile)
        frame.wait_for()
        expect(frame).to_have_attribute("style", re.compile(r"url\("))
        style: Any = frame.get_attribute("style")
        drawn, wanted = (png(address) for address in (style, data_url(site.picture.placeholder or "") or ""))
        difference = ImageChops.difference(drawn, wanted)
        assert max(high for _, high in difference.getextrema()) <= 2  # type: ignore[misc]
        assert is_like(quarters_of(seen(page, tile)), 90)
        let_go()
        loaded(page, f"{tile} img[data-loaded]")
        source = page.locator(f"{tile} img").evaluate("image => image.currentSrc")
        assert source.endswith("_w400.jpg")
        assert is_like(quarters_of(seen(page, tile)), 25)


def png(text: str) -> Image.Image:
    """The picture in a `data:` URL."""
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert data is not None
    image = Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB")
    image.load()
    return image

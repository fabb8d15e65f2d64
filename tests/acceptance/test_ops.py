"""The page of operators in a real browser, on a real gateway."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from dream.db import DreamTask
from dream.db.clock import now
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import TaskState
from dream.settings import Settings
from tests.acceptance.conftest import quiet
from tests.conftest import wait_for
from tests.gateway import DREAM, Gateway, token

NASTY = "<img src=x onerror=document.title='broken'>"
OPERATOR = token(99, dream_operator=True)
#: Script, style and the first figures of the page, as the gateway sends them.
MOST_BYTES = 40_000


@pytest.fixture
def gateway(
    environment: dict[str, str], settings_of: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> Iterator[Gateway]:
    with Gateway(environment, settings_of(environment), tmp_path) as gateway:
        yield gateway


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may say nothing wrong on its console."""
    with quiet(browser.new_page(viewport={"width": 1280, "height": 900}, locale="en")) as page:
        yield page


def open_ops(page: Page, gateway: Gateway, own: str = OPERATOR) -> None:
    page.goto(f"http://127.0.0.1:{gateway.port}/ops#token={own}")


def fail(gateway: Gateway, *task_ids: str) -> None:
    with gateway.database.begin() as session:
        for task_id in task_ids:
            failed = {"state": TaskState.FAILED, "finished_at": now(), "announced_at": now()}
            error = f"{NASTY} is damaged\nwords for operators"
            session.add(DreamTask(id=task_id, name=PROCESS_IMAGES, args=[DREAM], attempts=1, error=error, **failed))


def assert_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


@pytest.mark.slow
def test_failed_tasks_are_read_replayed_and_deleted(page: Page, gateway: Gateway) -> None:
    """Deletion asks first. Names are never HTML, and focus stays in the section."""
    fail(gateway, "one", "two", "three")
    open_ops(page, gateway)
    expect(page.get_by_role("heading", name="Failed tasks · 3")).to_be_visible()
    assert "token" not in page.url
    expect(page.locator(".verdict")).to_contain_text("No worker runs")
    page.locator("summary", has_text="is damaged").first.click()
    expect(page.locator("pre").first).to_have_text("words for operators")
    assert_accessible(page)

    page.get_by_label("Select two").check()
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".said")).to_have_text("1 task runs again.")
    expect(page.locator("#title-failed")).to_be_focused()
    page.get_by_label("Select all").check()
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    assert_accessible(page)
    page.keyboard.press("Escape")
    with gateway.database.read() as session:
        states = {each.id: each.state for each in session.query(DreamTask)}
    assert states == {"one": TaskState.FAILED, "two": TaskState.QUEUED, "three": TaskState.FAILED}
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".said")).to_have_text("2 tasks were deleted.")
    expect(page.get_by_text("No task has failed for good.")).to_be_visible()
    expect(page.locator(".tiles div", has_text="Waiting").locator("dd")).to_have_text("1")
    with gateway.database.read() as session:
        assert [each.id for each in session.query(DreamTask)] == ["two"]
    expect(page).to_have_title("dream · Operations")


@pytest.mark.slow
def test_a_token_without_the_claim_is_told_so_and_a_right_one_opens_the_page(page: Page, gateway: Gateway) -> None:
    open_ops(page, gateway, token())
    expect(page.get_by_role("alert")).to_contain_text("needs the token of an operator")
    assert_accessible(page)
    page.get_by_label("Token of an operator").fill(f"Bearer {OPERATOR}")
    page.get_by_role("button", name="Open").click()
    expect(page.locator(".life")).to_contain_text("live")
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(page.get_by_label("Token of an operator")).to_have_value("")


@pytest.mark.slow
def test_an_action_that_ends_after_signing_out_asks_for_nothing(page: Page, gateway: Gateway) -> None:
    """Text in the token form stays there."""
    fail(gateway, "one")
    held: list[Route] = []
    page.route("**/failed/replay", lambda route: held.append(route))
    open_ops(page, gateway)
    page.get_by_label("Select one").check()
    page.get_by_role("button", name="Replay").click()
    wait_for(lambda: page.evaluate("1") and held, what="the request")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token of an operator").fill("half a token")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/failed/replay"):
        held[0].continue_()
    page.evaluate("new Promise((done) => setTimeout(done))")
    expect(page.get_by_label("Token of an operator")).to_have_value("half a token")
    assert not [each for each in asked if each.endswith("/api/ops")]


@pytest.mark.slow
def test_details_are_read_again_after_an_error(page: Page, gateway: Gateway) -> None:
    fail(gateway, "one")
    open_ops(page, gateway)
    page.route("**/failed/one", lambda route: route.abort())
    summary = page.locator("summary", has_text="is damaged")
    summary.click()
    expect(page.locator(".details")).to_have_text("the connection was lost")
    page.unroute("**/failed/one")
    summary.click()
    summary.click()
    expect(page.locator("pre")).to_have_text("words for operators")
    expect(page.get_by_text("the connection was lost")).to_have_count(0)


@pytest.mark.slow
def test_figures_may_be_unknown_or_huge(page: Page, gateway: Gateway) -> None:
    """With every server away, and with numbers that no site has."""
    errors: list[str] = []
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)

    def unknown(figures: dict[str, Any]) -> None:
        names = {"tasks", "history", "processes", "metrics", "schedule", "storage"}
        figures.update(dict.fromkeys(names), away=dict.fromkeys(("broker", "database", "redis"), "is away"))
        for queue in figures["queues"]:
            queue.update((name, None) for name in queue if name != "name")

    def huge(figures: dict[str, Any]) -> None:
        for queue in figures["queues"]:
            queue.update((name, 10**12) for name in ("due_tasks", "running", "waiting", "delayed", "oldest_age_s"))
        for minute in figures["history"]["minutes"]:
            minute[1:] = [10**12 for _ in minute[1:]]
        staged = {"files": 10**12, "staged_bytes": 10**18, "unmeasured": 3}
        users = [{"user_id": 10**18, "stored_bytes": 10**18}]
        figures["storage"] = {"at": 0, "pictures": 10**12, "stored_bytes": 10**18, "staged": staged, "users": users}

    def changed(route: Route) -> None:
        answer = route.fetch()
        figures = answer.json()
        change(figures)
        route.fulfill(response=answer, json=figures)

    change = unknown
    page.route("**/api/ops", changed)
    open_ops(page, gateway)
    expect(page.locator(".verdict")).to_contain_text("The database is away")
    expect(page.locator(".tiles dd")).to_have_text(["?"] * 5 + ["–"])
    change = huge
    expect(page.locator(".tiles div", has_text="Stored").locator("dd")).to_have_text("1,000,000 TB")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []


@pytest.mark.slow
def test_a_gateway_that_is_gone_leaves_the_last_figures_and_is_found_again(
    page: Page, gateway: Gateway, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """A paused page asks for nothing."""
    open_ops(page, gateway)
    expect(page.locator(".life")).to_contain_text("live")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".life")).to_contain_text("paused")
    gateway.process.terminate()
    gateway.process.wait(15)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer", timeout=15_000)
    expect(page.locator(".queues")).to_contain_text("dream_image_processing")
    assert_accessible(page)
    (tmp_path / "again").mkdir()
    with Gateway({**environment, "DREAM_PORT": str(gateway.port)}, settings, tmp_path / "again"):
        expect(page.get_by_role("alert")).to_be_hidden(timeout=20_000)
        expect(page.locator(".life")).to_contain_text("live")


@pytest.mark.slow
@pytest.mark.parametrize(("locale", "scheme"), [("en", "dark"), ("zh-CN", "light")])
def test_the_page_is_small_fits_a_phone_and_speaks_the_browsers_language(
    browser: Browser, gateway: Gateway, locale: str, scheme: Any
) -> None:
    sent: list[int] = []
    context = browser.new_context(viewport={"width": 360, "height": 740}, locale=locale, color_scheme=scheme)
    with context:
        page = context.new_page()
        page.on("requestfinished", lambda request: sent.append(request.sizes()["responseBodySize"]))
        fail(gateway, "one")
        open_ops(page, gateway)
        expect(page.locator(".queues td").first).to_be_visible()
        expect(page.locator(".failed-list li")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("html").get_attribute("lang") == locale[:2]
        expect(page.locator("h1")).to_contain_text({"en": "Operations", "zh": "运维"}[locale[:2]])
        assert_accessible(page)
        assert len(sent) >= 8
        assert sum(sent) <= MOST_BYTES


def test_words_are_the_same_in_both_languages() -> None:
    """Each text that the scripts name is there, in English and in Chinese, and no other."""
    folder = Path(__file__).resolve().parents[2] / "dream/gateway/static/ops"
    english, chinese = (folder / "words.js").read_text(encoding="utf-8").split("Object.assign(words.zh")
    keys = [re.findall(r'^  "([a-z.0-9]+)":', part, re.MULTILINE) for part in (english, chinese)]
    assert keys[0] == keys[1]
    scripts = "".join((folder / name).read_text(encoding="utf-8") for name in ("ops.js", "failed.js"))
    named = {*re.findall(r'"(ops\.[a-z.0-9]+)"', scripts)}
    families = [f"{found}." for found in re.findall(r"`(ops\.[a-z.]+|outcome)\.\$\{", scripts)]
    assert named <= set(keys[0])
    assert [each for each in keys[0] if each not in named and not each.startswith(tuple(families))] == []

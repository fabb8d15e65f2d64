"""The documentation as a site: it builds without a warning, needs no other site, and its search finds pages."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import TimeoutError as NotThere

from docs.pages import deploy_files
from tests.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of the site, and its address."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow  # a build takes many seconds, and `make docs` is one
def test_every_page_is_on_the_site_and_in_the_list_for_language_models(site: tuple[Path, str]) -> None:
    folder, _ = site
    listed = (folder / "llms.txt").read_text("utf-8")
    sources = {path.stem for path in (ROOT / "docs").glob("*.md")}
    built = {str(path.relative_to(folder)) for path in folder.rglob("*.html")} - {"404.html"}
    assert {f"{name}.html" for name in sources} <= built
    assert {name for name in built if f"]({name})" not in listed} == set()


def test_the_passwords_of_containers_are_not_on_the_site(tmp_path: Path) -> None:
    docker = tmp_path / "deploy/docker"
    for name in ("Dockerfile", "secrets/dream_jwt_secret", "secrets.new/s3_json"):
        path = docker / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.name}")
    page = "\n".join(deploy_files(tmp_path / "deploy"))
    assert "text of Dockerfile" in page
    assert page.count("text of") == 1


@pytest.mark.slow
def test_a_reader_finds_a_setting_without_any_other_site(site: tuple[Path, str], browser: Browser) -> None:
    _, address = site
    page = browser.new_page()
    strangers: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(address) else strangers.append(request.url))
    query, found = page.locator("[data-md-component=search-query]"), page.locator(".md-search-result__item a").first

    def has_found() -> bool:
        """Load and type again: the page forgets what is typed before its search is ready."""
        page.goto(f"{address}/index.html")
        expect(page.get_by_role("heading", name="Two commands")).to_be_visible()
        query.fill("")
        query.fill("DREAM_MAX_EDGE_PX")
        with contextlib.suppress(NotThere):
            found.wait_for(timeout=5_000)
        return found.is_visible()

    wait_for(has_found, 60, "what the search finds")
    found.click()
    page.wait_for_url("**/*settings.html*")
    page.close()
    assert [url for url in strangers if not url.startswith("data:")] == []

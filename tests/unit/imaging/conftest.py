"""A real Chromium, for tests of what browsers show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import IN_CI


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium whose screen has the colours of sRGB."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        (pytest.fail if IN_CI else pytest.skip)("no chromium is installed")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()

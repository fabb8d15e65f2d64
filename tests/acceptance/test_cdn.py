"""A cache of the public before the gateway, as docs/delivery.md has it for nginx, and a browser behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dream.db.dreams import give_to
from dream.settings import Settings
from dream.stack.ports import choose
from dream.storage import Storage
from tests.conftest import wait_for
from tests.gateway import DREAM, KEY, OWNER, Gateway, auth
from tests.nginx import nginx
from tests.pictures import noise

ROOT = Path(__file__).resolve().parents[2]
DELIVERY = ROOT / "docs" / "delivery.md"
FORGET_S = 2


def site(folder: Path, port: int, gateway_port: int) -> str:
    """The lines of the documentation, around a gateway."""
    (lines,) = re.findall(r"```nginx\n(proxy_cache_path .*?)```", DELIVERY.read_text(), re.DOTALL)
    path, location = lines.replace("/var/cache/nginx/dream", str(folder / "cache")).split("\n\n")
    upstream = f"upstream dream_gateway {{ server 127.0.0.1:{gateway_port}; }}"
    told = "add_header X-Cache $upstream_cache_status always;"
    return f"{path}\n{upstream}\nserver {{ listen 127.0.0.1:{port}; {told} {location} }}"


@pytest.mark.parametrize("file", ["docs/delivery.md", "deploy/nginx/dream.conf", "deploy/docker/nginx/dream.conf"])
def test_nginx_tells_the_gateway_each_visitors_address(file: str) -> None:
    """Without it all visitors count as one behind `DREAM_TRUSTED_PROXIES`."""
    locations = re.findall(r"location /[^}]*proxy_pass http://\$?dream_gateway;[^}]*", (ROOT / file).read_text())
    assert len(locations) == 1
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in locations[0]


@pytest.mark.slow
def test_a_deleted_picture_is_gone_from_a_public_cache_and_from_a_browser_behind_it(
    browser: Browser,
    environment: dict[str, str],
    settings_of: Callable[..., Settings],
    settings: Settings,
    tmp_path: Path,
) -> None:
    """After the forget time from the cache, and after twice that time from a browser: nginx sends no `Age`."""
    (tmp_path / "picture").write_bytes(noise(16, 16))
    Storage(settings).put_file(settings.s3_bucket, KEY, tmp_path / "picture", "image/jpeg")
    public = {"DREAM_MEDIA_MODE": "proxy", "DREAM_MEDIA_CACHE": "public", "DREAM_MEDIA_FORGET_S": str(FORGET_S)}
    own, port = {**environment, **public}, choose()
    with Gateway(own, settings_of(own), tmp_path) as gateway, nginx(tmp_path, site(tmp_path, port, gateway.port), port):
        image_id = gateway.add_image()
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
        address = f"http://127.0.0.1:{port}/media/{KEY}"
        with browser.new_context() as context:
            had_it, had_it_not = context.new_page(), browser.new_page()

            def seen(page: Page) -> tuple[int, str | None]:
                answer = page.goto(address)
                assert answer is not None
                return answer.status, answer.headers.get("x-cache")

            assert seen(had_it) == (200, "MISS")
            assert seen(had_it_not) in [(200, "HIT"), (200, "REVALIDATED")]
            had_it_not.close()
            deletion = gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth())
            assert deletion.status_code == 202
            wait_for(lambda: seen(had_it)[0] == 404, 2 * FORGET_S + 5, "the end of both caches' time")

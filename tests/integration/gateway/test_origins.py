"""Pages of other sites: who may open sockets, who may read answers, and the headers that protect browsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from dream.settings.types import origin_of
from tests.gateway import DREAM, Gateway, auth, running, token
from tests.integration.gateway.test_crowds import answer, plug

APP, OTHER = "https://app.example.org", "https://evil.example"
IMAGES = f"/api/dreams/{DREAM}/images"


@pytest.fixture(scope="module")
def choosy(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that names two sites."""
    named = {
        "DREAM_ALLOWED_ORIGINS": f"{APP}, https://*.example.net",
        "DREAM_MEDIA_ACCESS": "owner",
        "DREAM_MEDIA_KEYS": "k" * 32,
        "DREAM_MAX_REQUEST_BYTES": "1000",
        "DREAM_HEAD_TIMEOUT_S": "1",
    }
    with running(tmp_path_factory.mktemp("origins"), servers, **named) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (None, True),
        (APP, True),
        ("https://a.example.net", True),
        ("https://a.b.example.net", True),
        ("its own", True),
        (OTHER, False),
        ("https://example.net", False),
        ("https://evilexample.net", False),
        ("https://example.net.evil.example", False),
        ("http://app.example.org", False),
        (f"{APP}:444", False),
        (f"{APP}.evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_opens_a_socket_only_from_an_allowed_site(choosy: Gateway, origin: str | None, is_allowed: bool) -> None:
    origin = origin_of(choosy.settings.gateway_url) if origin == "its own" else origin
    how = {} if origin is None else {"origin": Origin(origin)}
    if is_allowed:
        with choosy.socket(f"?token={token()}", **how):
            return
    with pytest.raises(InvalidStatus) as refused, choosy.socket(f"?token={token()}", **how):
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["code"] == "origin_not_allowed"


def test_without_the_setting_every_page_opens_sockets_and_none_reads_answers(gateway: Gateway) -> None:
    with gateway.watching(origin=Origin(OTHER)):
        answer = gateway.http.get(IMAGES, headers={**auth(), "Origin": OTHER})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", IMAGES, 401),
        ("GET", "/nothing", 404),
        ("POST", IMAGES, 401),
        ("GET", "/healthz", 200),
        ("GET", "/static/page.js", 200),
        ("GET", "/media/dreams/20260101/x.jpg", 404),
    ],
)
def test_pages_of_allowed_sites_read_answers_and_errors(choosy: Gateway, method: str, path: str, status: int) -> None:
    answer = choosy.http.request(method, path, headers={"Origin": APP})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"  # for the cookie of pictures
    assert "Link" in answer.headers["access-control-expose-headers"].split(", ")
    other = choosy.http.request(method, path, headers={"Origin": OTHER})
    assert "access-control-allow-origin" not in other.headers
    # A cache must not give one site's answer to another, nor the answer without an origin.
    for each in (answer, other, choosy.http.request(method, path)):
        assert "Origin" in each.headers["vary"]


def test_a_preflight_permits_the_methods_and_headers_of_the_api(choosy: Gateway) -> None:
    """It needs no token, for browsers send none with it."""

    def ask(origin: str, method: str, headers: str) -> int:
        asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
        return choosy.http.options(IMAGES, headers=asked).status_code

    assert ask(APP, "POST", "authorization, content-type, idempotency-key") == 200
    assert ask(APP, "PATCH", "authorization") == 200
    assert ask(APP, "GET", "last-event-id") == 200
    assert ask(OTHER, "POST", "authorization") == 403
    assert ask(APP, "TRACE", "authorization") == 403
    assert ask(APP, "POST", "x-odd") == 403


def test_every_answer_has_headers_that_protect_browsers(gateway: Gateway) -> None:
    """Errors have them too. Only pictures and files for pages may be shown by other sites."""
    for path, shared in (
        ("/", "same-origin"),
        ("/nothing", "same-origin"),
        (IMAGES, "same-origin"),
        ("/static/page.css", "cross-origin"),
        ("/media/dreams/20260101/x.jpg", "cross-origin"),
    ):
        headers = gateway.http.get(path).headers
        assert headers["cross-origin-resource-policy"] == shared
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert ("cross-origin-opener-policy" in headers) == (path == "/")
        assert ("permissions-policy" in headers) == (path == "/")


def test_a_log_has_neither_tokens_nor_tickets(choosy: Gateway) -> None:
    own = token(jti="unseen")
    ticket = choosy.http.post("/api/ws-ticket", headers=auth(own)).json()["ticket"]
    with pytest.raises(InvalidStatus), choosy.socket(f"?token={own}&ticket={ticket}", origin=Origin(OTHER)):
        pass
    with choosy.socket(f"?ticket={ticket}"):
        pass
    text = Path(choosy.log).read_text()
    assert "origin_refused" in text
    for secret in (own, own.rpartition(".")[2], ticket):
        assert secret not in text


@pytest.mark.parametrize(
    ("rest", "status"),
    [("X: " + "x" * 17_000, 431), ("no colon\r\n\r\n", 400), ("X: half a hea", 408)],
    ids=["large", "nonsense", "slow"],
)
@pytest.mark.parametrize("origin", [APP, OTHER])
def test_raw_answers_have_the_headers_of_all_others(choosy: Gateway, rest: str, status: int, origin: str) -> None:
    """An allowed page reads why its request was refused, though no application saw it."""
    with plug(choosy, f"GET /healthz HTTP/1.1\r\nOrigin: {origin}\r\nHost: x\r\n{rest}".encode()) as raw:
        said = answer(raw)
    head = said.partition(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith(f"http/1.1 {status} ")
    assert head.count("x-content-type-options: nosniff") == 1
    assert (f"access-control-allow-origin: {APP}" in head) == (origin == APP)
    assert "vary: origin" in head

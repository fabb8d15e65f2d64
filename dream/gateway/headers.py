"""Headers that protect browsers, on every answer of the gateway.

`Strict-Transport-Security` is left to the proxy that has the certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.gateway.origins import OriginCheck, with_cors
from dream.settings.types import origin_of

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["content_security_policy", "guarded", "headers_without_app"]

#: For pages: no other window reaches them, and they use no device.
_OF_PAGES = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
#: For scripts and styles, which are no documents: the page's policy is longer than many of them.
_POLICY_OF_FILES = b"default-src 'none'; frame-ancestors 'none'"
_FILES = "/static/"
#: Addresses whose files other sites' pages may show: pictures, and the elements for pages.
_FOR_OTHER_SITES = ("/media/", _FILES)


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application behind the rules for browsers. Its errors have the headers too."""
    return OriginCheck(with_cors(_SecurityHeaders(app, settings), settings), settings)


def headers_without_app(scope: Mapping[str, Any] | None, settings: Settings) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that no application gives.

    Parameters:
      scope: the request as far as it is known.
    """
    found: list[tuple[bytes, bytes]] = []

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})

    async def note(message: Message) -> None:
        found.extend(message.get("headers", ()))

    known = {"type": "http", "method": "GET", "path": "", "headers": [], **(scope or {})}
    with suppress(StopIteration):  # nothing in it waits
        guarded(answer, settings)(known, _no_request, note).send(None)  # type: ignore[attr-defined]
    return found


async def _no_request() -> Message:
    return {"type": "http.disconnect"}


def content_security_policy(settings: Settings) -> str:
    """The policy of the page: it loads its own files, and pictures from where this process leads browsers."""
    origins = {origin_of(settings.gateway_url)}
    if settings.media_mode == "redirect":
        endpoint = settings.s3_endpoint_url or "https://amazonaws.com"
        origins |= {origin_of(endpoint), origin_of(endpoint, "*.")}
    if settings.public_url:
        origins.add(origin_of(settings.public_url))
    images = " ".join(sorted(origins))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' blob: data: {images}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


class _SecurityHeaders:
    """Adds security headers to every answer that does not set them itself."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._policy = content_security_policy(settings).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        shared = b"cross-origin" if path.startswith(_FOR_OTHER_SITES) else b"same-origin"
        is_file = path.startswith(_FILES)
        wanted = (
            (b"content-security-policy", _POLICY_OF_FILES if is_file else self._policy),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", shared),
            (b"cache-control", b"no-cache" if is_file else b"no-store"),
        )

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.setdefault("headers", [])
                values = {name.lower(): value for name, value in own}
                is_page = values.get(b"content-type", b"").startswith(b"text/html")
                more = (*wanted, *_OF_PAGES) if is_page else wanted
                message["headers"] = [*own, *(each for each in more if each[0] not in values)]
            await send(message)

        await self._app(scope, receive, send_with_headers)

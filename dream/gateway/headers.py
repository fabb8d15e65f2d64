"""What surrounds every request: its line in the log, without the query string, and the headers that protect."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.log import get_logger

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["AccessLog", "SecurityHeaders", "content_security_policy"]

log = get_logger(__name__)


def content_security_policy(settings: Settings) -> str:
    """What the page may load: its own files, and pictures from where they may lie."""
    endpoint = settings.s3_endpoint_url or "https://amazonaws.com"
    origins = {_origin(settings.gateway_url), _origin(endpoint), _origin(endpoint, "*.")}
    if settings.public_url:
        origins.add(_origin(settings.public_url))
    images = " ".join(sorted(origins))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' blob: data: {images}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


def _origin(url: str, subdomain: str = "") -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{subdomain}{parts.netloc.rpartition('@')[2]}"


class SecurityHeaders:
    """Adds the headers that hold for every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers: Mapping[str, str] = {
            "Content-Security-Policy": content_security_policy(settings),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                is_file = scope["path"].startswith("/static/")
                headers.setdefault("Cache-Control", "no-cache" if is_file else "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class AccessLog:
    """One line a request. The query string may hold a token, so it is not in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            took_ms = round((time.monotonic() - began) * 1000)
            log.info("request_answered", method=scope["method"], path=scope["path"], status=status, took_ms=took_ms)

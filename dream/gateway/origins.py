"""Decide which sites' pages may use the gateway from a browser (`DREAM_ALLOWED_ORIGINS`).

A page of another site gets 403 for a WebSocket, before it is accepted, and may not read answers over HTTP (CORS). A
client that sends no `Origin` is no page, and is let in. Without the setting every page may open sockets, and no other
site's page reads answers.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dream.gateway.refusals import Code
from dream.log import get_logger
from dream.settings.types import origin_of

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["OriginCheck", "with_cors"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
#: Headers that a page may send, besides those that every page may.
_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Range")
#: Headers of answers that a page may read, besides those that every page may.
_READ = ("Content-Disposition", "Content-Range", "ETag", "Link", "Location", "Retry-After")
_REFUSED = "pages of this site may not do this; an operator can name the site in DREAM_ALLOWED_ORIGINS"
#: Browsers ask again after this time.
_PREFLIGHT_S = 600

log = get_logger(__name__)


def _pattern(settings: Settings) -> str:
    """A regular expression for the allowed origins, and for the gateway's own page."""
    allowed = (*settings.allowed_origins, origin_of(settings.gateway_url))
    return "|".join(re.escape(each).replace(r"\*\.", r"([a-z0-9-]+\.)+") for each in allowed)


def with_cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application with headers that let pages of the allowed sites read its answers; without such sites as it is.

    Cookies are for pictures alone: their pages send them from other hosts of the same site only (`SameSite=Lax`).
    """
    if not settings.allowed_origins:
        return app
    return _Cors(
        app,
        allow_origin_regex=_pattern(settings),
        allow_methods=_METHODS,
        allow_headers=_SENT,
        expose_headers=_READ,
        allow_credentials=settings.media_access != "link",
        max_age=_PREFLIGHT_S,
    )


class _Cors(CORSMiddleware):
    """Starlette's middleware, which refuses in the gateway's own form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        said = {"error": _REFUSED, "code": Code.ORIGIN_NOT_ALLOWED.code}
        return JSONResponse(said, Code.ORIGIN_NOT_ALLOWED.status, kept)


class OriginCheck:
    """Middleware that refuses WebSockets of other sites' pages."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = re.compile(_pattern(settings)) if settings.allowed_origins else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._allowed is not None:
            origin = Headers(scope=scope).get("origin")
            if origin is not None and not self._allowed.fullmatch(origin):
                log.info("origin_refused", origin=origin[:200])
                await _refuse(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # which is 403 before the socket is accepted
        return
    body = json.dumps({"error": _REFUSED, "code": Code.ORIGIN_NOT_ALLOWED.code}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": Code.ORIGIN_NOT_ALLOWED.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

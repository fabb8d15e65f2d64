"""The application: routes, the page, and middleware around every request.

/ws/dream-images/{dream_id}/          the socket of a dream
/api/dreams/{dream_id}/images[/{id}]  upload, list, reorder, show, delete; also …/{id}/original, …/focus and …/retry
/api/dreams/{dream_id}/events         the events of a dream as Server-Sent Events
/api/client-settings                  the limits and formats that a page needs
/api/dreams/{dream_id}/uploads        direct uploads: begin, and …/{id}/complete
/api/auth/logout                      revoke a token
/api/auth/media-cookie                give a browser the cookie that shows its user's own pictures
/ops  /api/ops                        the page of operators, and its data
/api/ws-ticket                        get a ticket, which opens one socket or stream
/media/{key}                          a picture: a redirect, through nginx, or from here
/healthz  /readyz  /openapi.json  /   health, readiness, the description of all this, the page
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dream.gateway.access import drop_cookie
from dream.gateway.answers import ClientSettings, Health, Readiness
from dream.gateway.credentials import identify, new_ticket
from dream.gateway.faults import HANDLERS
from dream.gateway.focus import put_focus
from dream.gateway.images import delete_image, reorder_images, retry_image, show_image
from dream.gateway.listing import list_images
from dream.gateway.media import media, media_cookie
from dream.gateway.openapi import document
from dream.gateway.operations import Resource, Returns, operation
from dream.gateway.ops import ROUTES as OPS_ROUTES
from dream.gateway.originals import original
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.gateway.sockets import watch_dream
from dream.gateway.streams import stream_events
from dream.gateway.traced import Traced
from dream.gateway.uploads import begin_upload, complete_upload, upload
from dream.imaging.media_types import picker_types
from dream.log import get_logger
from dream.observe import tracing
from dream.observe.metrics import REQUEST_SECONDS

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["document_text", "make_app", "routes"]

log = get_logger(__name__)


class _IdConvertor(Convertor[int]):
    """An id in a path, with at most as many digits as a database column takes."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _IdConvertor())

#: Labels of metrics; a client may send any method.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: In logs and metrics only, as in nginx: the connection ended before the answer began.
_CLIENT_LEFT = 499
_STATIC = Path(__file__).with_name("static")


def make_app(settings: Settings) -> Starlette:
    """Build the application of a gateway process.

    Raises:
      SettingsError: there is no usable key for tokens.
    """
    tracing.set_up(settings, "dream-gateway")
    traced = [Middleware(Traced, is_trusted=bool(settings.trusted_proxies))] if tracing.is_on() else []
    app = Starlette(
        routes=routes(),
        middleware=[*traced, Middleware(_AccessLog)],
        exception_handlers=HANDLERS,
        lifespan=_lifespan,
    )
    app.state.services = Services(settings)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    services: Services = app.state.services
    await services.start()
    try:
        yield
    finally:
        await services.stop()


@cache
def _page_text() -> str:
    return (_STATIC / "index.html").read_text(encoding="utf-8")


@operation("Open dream's own page", {200: Returns("the page", {"type": "string"}, "text/html")}, access="anybody")
async def _page(_request: Request) -> Response:
    return HTMLResponse(_page_text(), headers={"Cache-Control": "no-cache"})


@operation("Read the limits and formats of uploads", {200: Returns("the limits", ClientSettings)}, access="anybody")
async def _client_settings(request: Request) -> Response:
    """The limits and formats that a page needs before it sends a file."""
    settings = services_of(request).settings
    limits = {"max_upload_bytes": settings.max_upload_bytes, "media_access": settings.media_access}
    return JSONResponse({"accept": picker_types(), **limits})


@operation("Ask whether the process is up", {200: Returns("it is up", Health)}, access="anybody")
async def _healthz(_request: Request) -> Response:
    """The process is up."""
    return JSONResponse({"status": "ok"})


@operation(
    "Ask whether the servers behind the gateway answer",
    {
        200: Returns("all answer", Readiness),
        503: Returns("one is away", Readiness, headers={"Retry-After": "seconds until the next attempt"}),
    },
    access="anybody",
)
async def _readyz(request: Request) -> Response:
    return await services_of(request).readiness.answer()


@operation(
    "Log out: revoke the token",
    {204: Returns("the token is revoked", media_type=None)},
    refusals=(Code.TOKEN_NOT_REVOCABLE,),
    access="user",
)
async def _log_out(request: Request) -> Response:
    """Revoke the token of this request; a repetition gives 204 too."""
    services = services_of(request)
    identity = await identify(request)
    if identity.jti is None:
        raise Refused(
            Code.TOKEN_NOT_REVOCABLE, "the token has no jti claim, so it cannot be revoked; it ends when it expires"
        )
    await run_in_threadpool(services.authenticator.revoke, identity)
    response = Response(status_code=204)
    if services.settings.media_access != "link":
        drop_cookie(response, services.settings)
    return response


@cache
def document_text() -> bytes:
    """The OpenAPI document as JSON."""
    return json.dumps(document(routes()), ensure_ascii=False, separators=(",", ":")).encode()


@operation("Read this document", {200: Returns("OpenAPI 3.1", {"type": "object"})}, access="anybody")
async def _openapi(_request: Request) -> Response:
    return Response(await run_in_threadpool(document_text), media_type="application/json")


def routes() -> list[BaseRoute]:
    """The addresses of the application."""
    return [
        # The first route that matches serves a request, so the busiest one is first.
        Resource("/media/{key:path}", GET=media),
        Resource("/healthz", GET=_healthz),
        WebSocketRoute("/ws/dream-images/{dream_id:id}/", watch_dream),
        WebSocketRoute("/ws/dream-images/{dream_id:id}", watch_dream),
        Resource("/api/dreams/{dream_id:id}/images", GET=list_images, POST=upload, PATCH=reorder_images),
        Resource("/api/dreams/{dream_id:id}/images/{image_id:id}", GET=show_image, DELETE=delete_image),
        Resource("/api/dreams/{dream_id:id}/images/{image_id:id}/retry", POST=retry_image),
        Resource("/api/dreams/{dream_id:id}/images/{image_id:id}/original", GET=original),
        Resource("/api/dreams/{dream_id:id}/images/{image_id:id}/focus", PUT=put_focus),
        Resource("/api/dreams/{dream_id:id}/uploads", POST=begin_upload),
        Resource("/api/dreams/{dream_id:id}/uploads/{upload_id}/complete", POST=complete_upload),
        Resource("/api/dreams/{dream_id:id}/events", GET=stream_events),
        Resource("/api/client-settings", GET=_client_settings),
        Resource("/api/auth/logout", POST=_log_out),
        Resource("/api/auth/media-cookie", POST=media_cookie),
        *OPS_ROUTES,
        Resource("/api/ws-ticket", POST=new_ticket),
        Resource("/readyz", GET=_readyz),
        Resource("/openapi.json", GET=_openapi),
        Resource("/", GET=_page),
        Mount("/static", StaticFiles(directory=_STATIC), middleware=[Middleware(GZipMiddleware)]),
    ]


# --- around every request


class _AccessLog:
    """Logs and times each request. The line has no query string, which may contain a token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = _CLIENT_LEFT, time.monotonic()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception:
            status = 500
            raise
        finally:
            took_s, method, route = time.monotonic() - began, scope["method"], scope.get("route")
            REQUEST_SECONDS.observe(
                took_s, method if method in _METHODS else "other", getattr(route, "path", "none"), str(status)
            )
            took_ms = round(took_s * 1000)
            log.info("request_answered", method=method, path=scope["path"], status=status, took_ms=took_ms)

"""The application: its routes, its parts, and their lives.

/ws/dream-images/{dream_id}/          the socket of a dream
/api/dreams/{dream_id}/images[/{id}]  upload, list, delete
/api/auth/logout                      revoke a token
/media/{key}                          a picture, by redirect to a presigned GET
/healthz  /readyz  /                  health, readiness, the page
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from dream.db import Database
from dream.gateway.auth import Authenticator, check_secret
from dream.gateway.faults import HANDLERS
from dream.gateway.headers import AccessLog, SecurityHeaders
from dream.gateway.health import Readiness, healthz, readyz
from dream.gateway.limits import Limits
from dream.gateway.media import media
from dream.gateway.services import Services, services_of
from dream.gateway.sockets import watch_dream
from dream.gateway.uploads import delete_image, list_images, log_out, upload
from dream.imaging.accepted import picker_types
from dream.notifications.subscribe import Events
from dream.producer import Producer
from dream.storage import Storage

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["make_app"]


class _IdConvertor(Convertor[int]):
    """An id in a path: no more digits than a database column takes."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _IdConvertor())

_STATIC = Path(__file__).with_name("static")


def make_app(settings: Settings) -> Starlette:
    """The gateway of one process.

    Raises:
      SettingsError: there is no usable key to check tokens with.
    """
    check_secret(settings)
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(AccessLog), Middleware(SecurityHeaders, settings)],
        exception_handlers=HANDLERS,
        lifespan=_lifespan,
    )
    app.state.services = _services(settings)
    return app


def _services(settings: Settings) -> Services:
    database, storage, events = Database(settings), Storage(settings), Events(settings)
    return Services(
        settings=settings,
        database=database,
        storage=storage,
        producer=Producer(settings, database=database, storage=storage),
        events=events,
        authenticator=Authenticator(settings, database),
        limits=Limits(settings),
        readiness=Readiness(database, events, storage),
    )


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    services: Services = app.state.services
    await services.events.start()
    try:
        yield
    finally:
        await services.events.stop()
        services.database.dispose()


@cache
def _page_text(max_upload_bytes: int) -> str:
    """The page, with the formats that its file picker offers, and the size above which it sends no file."""
    text = (_STATIC / "index.html").read_text(encoding="utf-8")
    return text.replace("{{accept}}", picker_types()).replace("{{max_bytes}}", str(max_upload_bytes))


async def _page(request: Request) -> Response:
    text = _page_text(services_of(request).settings.max_upload_bytes)
    return HTMLResponse(text, headers={"Cache-Control": "no-cache"})


async def _images(request: Request) -> Response:
    """One route for both methods: the `Allow` of a 405 names the methods of a single route."""
    return await (upload(request) if request.method == "POST" else list_images(request))


def _routes() -> list[Route | WebSocketRoute | Mount]:
    return [
        WebSocketRoute("/ws/dream-images/{dream_id:id}/", watch_dream),
        WebSocketRoute("/ws/dream-images/{dream_id:id}", watch_dream),
        Route("/api/dreams/{dream_id:id}/images", _images, methods=["GET", "POST"]),
        Route("/api/dreams/{dream_id:id}/images/{image_id:id}", delete_image, methods=["DELETE"]),
        Route("/api/auth/logout", log_out, methods=["POST"]),
        Route("/media/{key:path}", media),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/", _page),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]

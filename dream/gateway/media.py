"""`/media/<key>`: from the URL that never changes to a GET that is valid now."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dream.db import images
from dream.gateway.services import Services, services_of
from dream.messages import ImageState
from dream.storage.keys import is_documented_key

__all__ = ["media"]


async def media(request: Request) -> Response:
    """Redirect to a fresh presigned GET; 404 for a picture that is unknown, unfinished or deleted."""
    services = services_of(request)
    location = await run_in_threadpool(_location, services, request.path_params["key"])
    if location is None:
        raise HTTPException(404, "there is no such picture")
    # Kept nowhere: a deleted picture is gone at once for everybody.
    return RedirectResponse(location, 302, {"Cache-Control": "no-store"})


def _location(services: Services, key: str) -> str | None:
    if not is_documented_key(key):
        return None
    with services.database.read() as session:
        image = images.by_key(session, key)
        bucket = image.bucket if image is not None and image.state == ImageState.COMPLETED else None
    return services.storage.presign(bucket, key) if bucket else None

"""`/media/<key>`: from the URL that never changes to a GET that is valid now."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dream.db import DreamImage, images
from dream.gateway.services import Services, services_of
from dream.messages import ImageState
from dream.storage.keys import EXTENSIONS, is_documented_key, stem_of_variant

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
    with services.database.read() as session:
        image = _image_of(session, key)
        bucket = image.bucket if image is not None and image.state == ImageState.COMPLETED else None
    return services.storage.presign(bucket, key) if bucket else None


def _image_of(session: Session, key: str) -> DreamImage | None:
    """The image whose own key this is, or that of one of its variants."""
    if is_documented_key(key):
        return images.by_key(session, key)
    stem = stem_of_variant(key)
    image = images.by_stem(session, stem, EXTENSIONS) if stem else None
    is_listed = image is not None and any(variant["url"].endswith(f"/{key}") for variant in image.variants)
    return image if is_listed else None

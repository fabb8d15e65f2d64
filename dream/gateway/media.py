"""`/media/<key>`: from the URL that never changes to a signed one that is valid now.

A browser keeps the redirect for `DREAM_MEDIA_FORGET_S`. It keeps the picture as long as the signed URL stays the same
(`DREAM_SIGN_WINDOW_S`).
"""

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
from dream.storage.signing import SignedUrl

__all__ = ["media"]


async def media(request: Request) -> Response:
    """Redirect to a signed GET; 404 for a picture that is unknown, unfinished or deleted."""
    services = services_of(request)
    signed = await run_in_threadpool(_signed, services, request.path_params["key"], request.method)
    if signed is None:
        raise HTTPException(404, "there is no such picture")
    # A HEAD has a signature of its own: a cache must not answer a GET with it.
    is_kept = signed.keep_s and request.method == "GET"
    return RedirectResponse(
        signed.url, 302, {"Cache-Control": f"private, max-age={signed.keep_s}" if is_kept else "no-store"}
    )


def _signed(services: Services, key: str, method: str) -> SignedUrl | None:
    with services.database.read() as session:
        image = _image_of(session, key)
        bucket = image.bucket if image is not None and image.state == ImageState.COMPLETED else None
    return services.storage.signed_url(bucket, key, method) if bucket else None


def _image_of(session: Session, key: str) -> DreamImage | None:
    """The image whose own key this is, or that of one of its variants."""
    if is_documented_key(key):
        return images.by_key(session, key)
    stem = stem_of_variant(key)
    image = images.by_stem(session, stem, EXTENSIONS) if stem else None
    is_listed = image is not None and any(variant["url"].endswith(f"/{key}") for variant in image.variants)
    return image if is_listed else None

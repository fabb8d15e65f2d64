"""A dream's images over REST: upload, list, delete."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.arguments import MAX_ID
from dream.db import DreamImage, images
from dream.db.dreams import Owner
from dream.gateway.auth import Identity, bearer_token, decode
from dream.gateway.form import read_upload
from dream.gateway.listing import listing
from dream.gateway.services import Services, services_of
from dream.messages import ImageState
from dream.producer.backlog import check_backlog

__all__ = ["delete_image", "list_images", "log_out", "upload"]


async def upload(request: Request) -> Response:
    """Take pictures for processing: 202 with the task's id, and nothing is lost; or an error, and nothing was kept.

    Files that cannot be accepted are named under `refused`; the others are accepted.
    """
    services, dream_id, owner = await _owned(request)
    # Who has too much waiting need not send the bytes first.
    await run_in_threadpool(check_backlog, services.settings, services.database, 1, dream_id, owner.user_id)
    async with read_upload(request, services.settings) as form, services.handing_over:
        if not form.files:
            return JSONResponse({"error": form.refusal_text, "refused": form.refused}, form.refusal_status)
        accept = partial(services.producer.upload_images, user_id=owner.user_id)
        task_id = await run_in_threadpool(accept, dream_id, form.files, form.positions)
        answer = {"task_id": task_id, "dream_id": dream_id, "files": len(form.files), "refused": form.refused}
    return JSONResponse(answer, 202)


async def list_images(request: Request) -> Response:
    """The dream's pictures in the order of its text: all of them, or the page that the query asks for."""
    services, dream_id, owner = await _owned(request)
    return await listing(request, services.database, services.limits.of(owner.user_id), dream_id)


async def delete_image(request: Request) -> Response:
    """Delete one picture: 202 with the task's id; from then on it is gone for every reader."""
    services, dream_id, owner = await _owned(request)
    image_id = int(request.path_params["image_id"])
    image = await run_in_threadpool(_image_of, services, dream_id, image_id) if image_id <= MAX_ID else None
    if image is None:
        raise HTTPException(404, "there is no such image in this dream")
    # Without a URL the id names the picture, within its dream: so also one that is not finished.
    target: Any = {"id": image_id, "url": image.url} if image.url else {"id": image_id}
    task_id = await run_in_threadpool(services.producer.delete_images, dream_id, [target], owner.username)
    return JSONResponse({"task_id": task_id, "dream_id": dream_id, "id": image_id}, 202)


async def log_out(request: Request) -> Response:
    """Revoke the token of this request; again and again gives 204."""
    services = services_of(request)
    identity = decode(_token(request), services.settings)
    services.limits.request(identity.user_id)
    if identity.jti is None:
        raise HTTPException(400, "the token has no jti claim, so it cannot be revoked; it ends when it expires")
    await run_in_threadpool(services.authenticator.revoke, identity)
    return Response(status_code=204)


def _token(request: Request) -> str:
    return bearer_token(request.headers.get("authorization", ""))


async def _owned(request: Request) -> tuple[Services, int, Owner]:
    """The dream of the request, which is the asker's own.

    Raises:
      TokenRejected: the token is not accepted.
      HTTPException: 404 where there is no such dream, 403 where it is somebody else's, 429 after too many requests.
    """
    services, dream_id = services_of(request), int(request.path_params["dream_id"])
    identity = decode(_token(request), services.settings)
    services.limits.request(identity.user_id)
    owner = await run_in_threadpool(_owner_of, services, identity, dream_id)
    if owner is None:
        raise HTTPException(404, "there is no such dream")
    if owner.user_id != identity.user_id:
        raise HTTPException(403, "this dream belongs to somebody else")
    return services, dream_id, owner


def _owner_of(services: Services, identity: Identity, dream_id: int) -> Owner | None:
    services.authenticator.confirm(identity)
    return services.authenticator.owner_of(dream_id) if 0 < dream_id <= MAX_ID else None


def _image_of(services: Services, dream_id: int, image_id: int) -> DreamImage | None:
    with services.database.read() as session:
        image = images.by_id(session, dream_id, image_id)
    is_gone = image is None or image.state in (ImageState.DELETING, ImageState.DELETED)
    return None if is_gone else image

"""A picture over REST: show and delete it; and the check that a dream belongs to the token's user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.db import DreamImage, images, tasks
from dream.db.dreams import Owner
from dream.gateway.answers import AcceptedImage, ImageDetail
from dream.gateway.auth import Identity
from dream.gateway.credentials import identify
from dream.gateway.operations import Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.media.signatures import viewable_with
from dream.messages.arguments import MAX_ID
from dream.messages.pictures import image_info
from dream.messages.srcset import srcset_of
from dream.messages.states import ImageState

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["delete_image", "image_of", "listed", "no_such_image", "owned", "retry_field", "show_image"]


@operation("Show a picture", {200: Returns("the picture", ImageDetail)}, refusals=(Code.IMAGE_NOT_FOUND,))
async def show_image(request: Request) -> Response:
    """Show one picture as lists do, and the private facts about the photo."""
    services, dream_id, _ = await owned(request)
    image_id = int(request.path_params["image_id"])
    image = await run_in_threadpool(_detail_of, services, dream_id, image_id) if image_id <= MAX_ID else None
    if image is None:
        raise no_such_image()
    row, retry = image
    shown = {**listed(services.settings, row), **retry_field(services.settings, retry)}
    return JSONResponse({**shown, "facts": row.facts})


@operation(
    "Delete a picture", {202: Returns("the task that deletes it", AcceptedImage)}, refusals=(Code.IMAGE_NOT_FOUND,)
)
async def delete_image(request: Request) -> Response:
    """Delete one picture: 202 with the task's id. From then on no reader sees it."""
    services, dream_id, owner = await owned(request)
    image_id = int(request.path_params["image_id"])
    image = await run_in_threadpool(image_of, services, dream_id, image_id)
    if image is None:
        raise no_such_image()
    # An unfinished picture has no URL; its id names it within the dream.
    target: Any = {"id": image_id, "url": image.url} if image.url else {"id": image_id}
    accept = partial(services.producer.delete_images, user_id=owner.user_id)
    task_id = await run_in_threadpool(accept, dream_id, [target], owner.username)
    services.catalogue.forget(image)
    return JSONResponse({"task_id": task_id, "dream_id": dream_id, "id": image_id}, 202)


async def owned(request: Request) -> tuple[Services, int, Owner]:
    """Check that the dream of the request belongs to the token's user.

    Raises:
      TokenRejected: the token is not accepted.
      Refused: 404 if there is no such dream, 403 if it has another owner, 429 after too many requests.
    """
    services, dream_id = services_of(request), int(request.path_params["dream_id"])
    identity = await identify(request)
    owner = await run_in_threadpool(_owner_of, services, identity, dream_id)
    if owner is None:
        raise Refused(Code.DREAM_NOT_FOUND, "there is no such dream")
    if not identity.owns(owner):
        raise Refused(Code.DREAM_NOT_YOURS, "this dream belongs to somebody else")
    return services, dream_id, owner


def _owner_of(services: Services, identity: Identity, dream_id: int) -> Owner | None:
    services.authenticator.confirm(identity)
    return services.authenticator.owner_of(dream_id) if 0 < dream_id <= MAX_ID else None


def no_such_image() -> Refused:
    """The answer to an id that names no picture of the dream."""
    return Refused(Code.IMAGE_NOT_FOUND, "there is no such image in this dream")


def _detail_of(services: Services, dream_id: int, image_id: int) -> tuple[Row[Any], tuple[int, datetime] | None] | None:
    """The picture with its facts, and the next attempt of its upload."""
    with services.connections.database.read() as session:
        row = images.detail(session, dream_id, image_id)
        return None if row is None else (row, tasks.retries_of(session, {row.task_id}).get(row.task_id))


def image_of(services: Services, dream_id: int, image_id: int) -> DreamImage | None:
    """The picture of this id in this dream; None if it is not there or is being deleted."""
    if image_id > MAX_ID:
        return None
    with services.connections.database.read() as session:
        image = images.by_id(session, dream_id, image_id)
    is_gone = image is None or image.state in (ImageState.DELETING, ImageState.DELETED)
    return None if is_gone else image


def retry_field(settings: Settings, waiting: tuple[int, datetime] | None) -> dict[str, Any]:
    """The field `retry` of a picture whose upload waits for its next attempt."""
    if waiting is None:
        return {}
    attempts, due_at = waiting
    return {"retry": {"attempt": attempts, "max_retries": settings.max_retries, "retry_at": due_at.timestamp()}}


def listed(settings: Settings, row: Any) -> Mapping[str, Any]:
    """A picture, with URLs that its page may use beside the canonical ones if these need a signature."""
    info = image_info(row)
    if settings.media_access != "signed":
        return info
    seen = partial(viewable_with, settings)
    return {
        **info,
        "variants": [{**each, "signed_url": seen(each["url"])} for each in info["variants"] or ()],
        "signed_url": seen(row.url) if row.url else None,
        "signed_srcset": srcset_of(row, seen),
    }

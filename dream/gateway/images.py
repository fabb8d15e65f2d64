"""Pictures over REST: show, delete, reorder and retry them; and the check that a dream belongs to the token's user."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.db import DreamImage, images, tasks
from dream.db.dreams import Owner
from dream.errors import TooManyPending
from dream.gateway.answers import AcceptedImage, ImageDetail, NewPositions, PositionsOfImages
from dream.gateway.auth import Identity
from dream.gateway.body import read_json
from dream.gateway.credentials import identify
from dream.gateway.operations import Body, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.media.signatures import viewable_with
from dream.messages.arguments import MAX_ID
from dream.messages.pictures import image_info
from dream.messages.srcset import srcset_of
from dream.messages.states import ImageState
from dream.pictures.order import give_positions
from dream.pictures.retry import process_again

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "delete_image",
    "image_of",
    "listed",
    "no_such_image",
    "owned",
    "owner_for",
    "reorder_images",
    "retry_field",
    "retry_image",
    "show_image",
]


_EXAMPLE = '{"positions": [{"id": 12, "position": 3}]}'
_NEW_POSITIONS = TypeAdapter(NewPositions)
_MOST_BYTES = 128 * 1024
#: A request that moves this many pictures counts as one more.
_AS_ONE_REQUEST = 100


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


@operation(
    "Give pictures new positions",
    {200: Returns("the positions", PositionsOfImages)},
    refusals=(Code.IMAGE_NOT_FOUND, Code.BODY_INVALID, Code.BODY_TOO_LARGE),
    body=Body(NewPositions),
)
async def reorder_images(request: Request) -> Response:
    """Write the positions of all these pictures, or of none: 200 with the positions."""
    services, dream_id, owner = await owned(request)
    wanted = (await read_json(request, _NEW_POSITIONS, _EXAMPLE, _MOST_BYTES))["positions"]
    positions = {each["id"]: each["position"] for each in wanted}
    if len(positions) < len(wanted):
        raise Refused(Code.BODY_INVALID, "positions names a picture twice; name each once")
    services.limits.of(owner.user_id).requests.owe(len(positions) / _AS_ONE_REQUEST)
    missing = await run_in_threadpool(give_positions, services.producer, dream_id, positions)
    if missing:
        raise Refused(Code.IMAGE_NOT_FOUND, f"there is no image {min(missing)} in this dream; nothing was changed")
    return JSONResponse({"dream_id": dream_id, "positions": wanted})


@operation(
    "Process a failed picture again",
    {202: Returns("its task", AcceptedImage)},
    refusals=(
        *(Code.IMAGE_NOT_FOUND, Code.IMAGE_NOT_FAILED, Code.UPLOAD_IN_WORK, Code.UPLOAD_GONE),
        TooManyPending,
    ),
)
async def retry_image(request: Request) -> Response:
    """Process a failed picture again: 202 with its task's id; also if it waits or is in work already."""
    services, dream_id, _ = await owned(request)
    image_id = int(request.path_params["image_id"])
    task_id = None
    if 0 < image_id <= MAX_ID:
        task_id = await run_in_threadpool(process_again, services.producer, dream_id, image_id)
    if task_id is None:
        raise no_such_image()
    return JSONResponse({"task_id": task_id, "dream_id": dream_id, "id": image_id}, 202)


async def owned(request: Request) -> tuple[Services, int, Owner]:
    """Check that the dream of the request belongs to the token's user.

    Raises:
      TokenRejected: the token is not accepted.
      Refused: 404 if there is no such dream, 403 if it has another owner, 429 after too many requests.
    """
    services, dream_id = services_of(request), int(request.path_params["dream_id"])
    return services, dream_id, await owner_for(services, await identify(request), dream_id)


async def owner_for(services: Services, identity: Identity, dream_id: int) -> Owner:
    """Check that a dream belongs to a user, and return this owner.

    Raises:
      TokenRejected: the token was revoked.
      Refused: 404 if there is no such dream, 403 if it has another owner.
    """
    owner = await run_in_threadpool(_owner_of, services, identity, dream_id)
    if owner is None:
        raise Refused(Code.DREAM_NOT_FOUND, "there is no such dream")
    if not identity.owns(owner):
        raise Refused(Code.DREAM_NOT_YOURS, "this dream belongs to somebody else")
    return owner


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

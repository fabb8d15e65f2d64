"""A dream's pictures over REST: list, show, delete.

The list comes page by page, or as one JSON array. The array is read, encoded and sent in portions, so thousands of
pictures delay no other request and take little memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dream.db import DreamImage, images, tasks
from dream.db.dreams import Owner
from dream.errors import InvalidArguments
from dream.gateway.answers import AcceptedImage, ImageDetail, ListedImage
from dream.gateway.auth import Identity, token_of
from dream.gateway.faults import DATABASE_FAULTS, log_fault
from dream.gateway.operations import Parameter, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.media.signatures import viewable_with
from dream.messages.arguments import MAX_ID
from dream.messages.pictures import image_info
from dream.messages.srcset import srcset_of
from dream.messages.states import ImageState
from dream.producer.listing import CURSOR, cursor_behind, parse_cursor
from dream.work.messages import MAX_ID_LENGTH

if TYPE_CHECKING:
    from dream.gateway.limits import User
    from dream.settings import Settings

__all__ = ["delete_image", "image_of", "list_images", "no_such_image", "owned", "show_image"]

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000
#: Pictures of the whole list that are read at a time.
_PORTION = 250
#: A request that lists this many pictures counts as one more.
_AS_ONE_REQUEST = 100
_LIMIT = re.compile(r"[0-9]{1,4}", re.ASCII)
_TASK = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")


_TASK_PARAMETER = Parameter(
    "task_id", {"type": "string", "pattern": f"^{_TASK.pattern}$"}, "the pictures of one upload"
)
_LIST_PARAMETERS = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": _MAX_LIMIT}, "one page of so many pictures"),
    Parameter("cursor", {"type": "string", "pattern": CURSOR}, "the page after another; from its `Link` header"),
    Parameter("task_id", {"type": "string", "pattern": f"^{_TASK.pattern}$"}, "the pictures of one upload"),
)


@operation(
    "List the pictures of a dream",
    {200: Returns("the pictures", list[ListedImage], headers={"Link": '`<…>; rel="next"`: the next page'})},
    refusals=(Code.QUERY_INVALID,),
    parameters=_LIST_PARAMETERS,
)
async def list_images(request: Request) -> Response:
    """List the dream's pictures in the order of its text: all of them, or one page."""
    services, dream_id, owner = await owned(request)
    return await _listing(request, services, services.limits.of(owner.user_id), dream_id)


@operation("Show a picture", {200: Returns("the picture", ImageDetail)}, refusals=(Code.IMAGE_NOT_FOUND,))
async def show_image(request: Request) -> Response:
    """Show one picture as lists do, and the private facts about the photo."""
    services, dream_id, _ = await owned(request)
    image_id = int(request.path_params["image_id"])
    image = await run_in_threadpool(_detail_of, services, dream_id, image_id) if image_id <= MAX_ID else None
    if image is None:
        raise no_such_image()
    return JSONResponse({**_listed(services.settings, image), "facts": image.facts})


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
    identity = await services.authenticator.identity_of(token_of(request))
    services.limits.request(identity.user_id)
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


def _detail_of(services: Services, dream_id: int, image_id: int) -> Row[Any] | None:
    with services.connections.database.read() as session:
        return images.detail(session, dream_id, image_id)


def image_of(services: Services, dream_id: int, image_id: int) -> DreamImage | None:
    """The picture of this id in this dream; None if it is not there or is being deleted."""
    if image_id > MAX_ID:
        return None
    with services.connections.database.read() as session:
        image = images.by_id(session, dream_id, image_id)
    is_gone = image is None or image.state in (ImageState.DELETING, ImageState.DELETED)
    return None if is_gone else image


# --- the list


@dataclass(frozen=True)
class _Wanted:
    """The query of a list.

    Parameters:
      limit: the most pictures of one page; None means all pictures.
      after: position and id of the last picture on the page before.
      task_id: the upload whose pictures are listed; None means all.
    """

    limit: int | None = None
    after: tuple[int, int] | None = None
    task_id: str | None = None


@dataclass(frozen=True)
class _Portion:
    """A portion of the list.

    Parameters:
      text: the pictures as JSON, without the brackets.
      count: the number of pictures.
      rest_after: position and id of the last one; None at the end of the list.
    """

    text: str
    count: int
    rest_after: tuple[int, int] | None


def _wanted_of(query: Mapping[str, str]) -> _Wanted:
    """Parse the query.

    Raises:
      Refused: 400 if a parameter is wrong.
    """
    limit, cursor, task_id = query.get("limit"), query.get("cursor"), query.get("task_id")
    if limit is not None and not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= _MAX_LIMIT):
        raise Refused(Code.QUERY_INVALID, f"limit must be a whole number from 1 to {_MAX_LIMIT}")
    if task_id is not None and not _TASK.fullmatch(task_id):
        raise Refused(Code.QUERY_INVALID, "task_id must be the task_id in the answer to an upload")
    is_paged = limit is not None or cursor is not None
    return _Wanted(int(limit or _DEFAULT_LIMIT) if is_paged else None, _after(cursor), task_id)


def _after(cursor: str | None) -> tuple[int, int] | None:
    if cursor is None:
        return None
    try:
        return parse_cursor(cursor)
    except InvalidArguments:
        raise Refused(
            Code.QUERY_INVALID, "cursor must come from a page's Link header; leave it out to begin anew"
        ) from None


async def _listing(request: Request, services: Services, user: User, dream_id: int) -> Response:
    wanted = _wanted_of(request.query_params)
    read = partial(_read, services, user, dream_id, wanted.task_id)
    first = await read(wanted.after, wanted.limit or _PORTION)
    if wanted.limit is None:
        return _Whole(_texts(read, first))
    return Response(f"[{first.text}]", media_type="application/json", headers=_link(request, wanted, first.rest_after))


def _link(request: Request, wanted: _Wanted, after: tuple[int, int] | None) -> dict[str, str]:
    """The `Link` header of the next page (RFC 8288); empty on the last page."""
    if after is None:
        return {}
    query = {"limit": wanted.limit, "cursor": cursor_behind(*after)}
    if wanted.task_id is not None:
        query["task_id"] = wanted.task_id
    return {"Link": f'<{request.scope["path"]}?{urlencode(query)}>; rel="next"'}


async def _read(
    services: Services, user: User, dream_id: int, task_id: str | None, after: tuple[int, int] | None, limit: int
) -> _Portion:
    async with user.turn:
        portion = await run_in_threadpool(_portion, services, dream_id, task_id, after, limit)
    user.requests.owe(portion.count / _AS_ONE_REQUEST)
    return portion


def _portion(
    services: Services, dream_id: int, task_id: str | None, after: tuple[int, int] | None, limit: int
) -> _Portion:
    with services.connections.database.read() as session:
        rows = images.page(session, dream_id, after=after, limit=limit + 1, task_id=task_id)
        shown = rows[:limit]
        retries = tasks.retries_of(session, {row.task_id for row in shown if row.state == ImageState.PENDING})
    listed = [
        {**_listed(services.settings, row), **_retry(services.settings, retries.get(row.task_id))} for row in shown
    ]
    text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False)[1:-1]
    return _Portion(text, len(shown), (shown[-1].position, shown[-1].id) if len(rows) > limit else None)


def _retry(settings: Settings, waiting: tuple[int, datetime] | None) -> dict[str, Any]:
    """The field `retry` of a picture whose upload waits for its next attempt."""
    if waiting is None:
        return {}
    attempts, due_at = waiting
    return {"retry": {"attempt": attempts, "max_retries": settings.max_retries, "retry_at": due_at.timestamp()}}


def _listed(settings: Settings, row: Any) -> Mapping[str, Any]:
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


async def _texts(read: Callable[..., Awaitable[_Portion]], portion: _Portion) -> AsyncIterator[str]:
    yield f"[{portion.text}"
    while portion.rest_after is not None:
        portion = await read(portion.rest_after, _PORTION)
        if portion.count:
            yield f",{portion.text}"
    yield "]"


class _Whole(StreamingResponse):
    """The whole list in portions. The answer breaks off if the database fails meanwhile."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            await self.stream_response(send)
        except DATABASE_FAULTS as error:
            log_fault("list_cut_off", error, path=scope["path"])

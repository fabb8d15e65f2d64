"""Lists of a dream's pictures over REST: one page, or all pictures as one JSON array.

The array is read, encoded and sent in portions, so thousands of pictures delay no other request and take little memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dream.db import images, tasks
from dream.errors import InvalidArguments
from dream.gateway.answers import ListedImage
from dream.gateway.faults import DATABASE_FAULTS, log_fault
from dream.gateway.images import listed, owned, retry_field
from dream.gateway.operations import Parameter, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services
from dream.messages.listing import (
    CURSOR,
    SHOWN_STATES,
    ListOrder,
    check_order,
    check_states,
    cursor_behind,
    parse_cursor,
)
from dream.messages.states import ImageState
from dream.work.messages import MAX_ID_LENGTH

if TYPE_CHECKING:
    from dream.gateway.limits import User

__all__ = ["list_images"]

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000
#: Pictures of the whole list that are read at a time.
_PORTION = 250
#: A request that lists this many pictures counts as one more.
_AS_ONE_REQUEST = 100
_LIMIT = re.compile(r"[0-9]{1,4}", re.ASCII)
_TASK = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")
_STATES = "|".join(SHOWN_STATES)
_PARAMETERS = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": _MAX_LIMIT}, "one page of so many pictures"),
    Parameter("order", {"enum": [*map(str, ListOrder)]}, "the order of the text (the default), or the newest first"),
    Parameter(
        "state",
        {"type": "string", "pattern": f"^(?:{_STATES})(?:,(?:{_STATES}))*$"},
        "only pictures in these states, with commas between them",
    ),
    Parameter("task_id", {"type": "string", "pattern": f"^{_TASK.pattern}$"}, "only the pictures of one upload"),
    Parameter("cursor", {"type": "string", "pattern": CURSOR}, "the page after another, from its `Link` header"),
)


@dataclass(frozen=True)
class _Wanted:
    """The query of a list.

    Parameters:
      limit: the most pictures of one page; None means all pictures.
      after: the keys of the last picture on the page before.
      task_id: the upload whose pictures are listed; None means all.
      order: the order of the list.
      states: the states that are listed; None means all.
    """

    limit: int | None = None
    after: tuple[int, ...] | None = None
    task_id: str | None = None
    order: ListOrder = ListOrder.POSITION
    states: frozenset[ImageState] | None = None


@dataclass(frozen=True)
class _Portion:
    """A portion of the list.

    Parameters:
      text: the pictures as JSON, without the brackets.
      count: the number of pictures.
      rest_after: the cursor behind the last one; None at the end of the list.
    """

    text: str
    count: int
    rest_after: str | None


@operation(
    "List the pictures of a dream",
    {200: Returns("the pictures", list[ListedImage], headers={"Link": '`<…>; rel="next"`: the next page'})},
    refusals=(Code.QUERY_INVALID,),
    parameters=_PARAMETERS,
)
async def list_images(request: Request) -> Response:
    """List the dream's pictures: all of them, or one page."""
    services, dream_id, owner = await owned(request)
    wanted = _wanted_of(request.query_params)
    read = partial(_read, services, services.limits.of(owner.user_id), dream_id, wanted)
    first = await read(wanted.after, wanted.limit or _PORTION)
    if wanted.limit is None:
        return _Whole(_texts(read, wanted.order, first))
    return Response(f"[{first.text}]", media_type="application/json", headers=_link(request, first.rest_after))


def _wanted_of(query: Mapping[str, str]) -> _Wanted:
    """Parse the query.

    Raises:
      Refused: 400 if a parameter is wrong.
    """
    limit, cursor, task_id, states = (query.get(name) for name in ("limit", "cursor", "task_id", "state"))
    if limit is not None and not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= _MAX_LIMIT):
        raise Refused(Code.QUERY_INVALID, f"limit must be a whole number from 1 to {_MAX_LIMIT}")
    if task_id is not None and not _TASK.fullmatch(task_id):
        raise Refused(Code.QUERY_INVALID, "task_id must be the task_id in the answer to an upload")
    if cursor is not None and not re.fullmatch(CURSOR, cursor):
        raise Refused(Code.QUERY_INVALID, "cursor must come from a page's Link header; leave it out to begin anew")
    try:
        order = check_order(query.get("order", ListOrder.POSITION))
        shown = check_states(None if states is None else states.split(","))
        after = None if cursor is None else parse_cursor(cursor, order)
    except InvalidArguments as error:
        raise Refused(Code.QUERY_INVALID, str(error)) from None
    is_paged = limit is not None or cursor is not None
    return _Wanted(int(limit or _DEFAULT_LIMIT) if is_paged else None, after, task_id, order, shown)


def _link(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header of the next page (RFC 8288); empty on the last page."""
    if cursor is None:
        return {}
    query = {"limit": _DEFAULT_LIMIT, **request.query_params, "cursor": cursor}
    known = {each.name: query[each.name] for each in _PARAMETERS if each.name in query}
    return {"Link": f'<{request.scope["path"]}?{urlencode(known)}>; rel="next"'}


async def _read(
    services: Services, user: User, dream_id: int, wanted: _Wanted, after: tuple[int, ...] | None, limit: int
) -> _Portion:
    async with user.turn:
        portion = await run_in_threadpool(_portion, services, dream_id, wanted, after, limit)
    user.requests.owe(portion.count / _AS_ONE_REQUEST)
    return portion


def _portion(services: Services, dream_id: int, wanted: _Wanted, after: tuple[int, ...] | None, limit: int) -> _Portion:
    how: Any = {"task_id": wanted.task_id, "order": wanted.order, "states": wanted.states}
    with services.connections.database.read() as session:
        rows = images.page(session, dream_id, after=after, limit=limit + 1, **how)
        shown = rows[:limit]
        retries = tasks.retries_of(session, {row.task_id for row in shown if row.state == ImageState.PENDING})
    pictures = [
        {**listed(services.settings, row), **retry_field(services.settings, retries.get(row.task_id))} for row in shown
    ]
    text = json.dumps(pictures, separators=(",", ":"), ensure_ascii=False)[1:-1]
    return _Portion(text, len(shown), cursor_behind(shown[-1], wanted.order) if len(rows) > limit else None)


async def _texts(read: Callable[..., Awaitable[_Portion]], order: ListOrder, portion: _Portion) -> AsyncIterator[str]:
    yield f"[{portion.text}"
    while portion.rest_after is not None:
        portion = await read(parse_cursor(portion.rest_after, order), _PORTION)
        if portion.count:
            yield f",{portion.text}"
    yield "]"


class _Whole(StreamingResponse):
    """The whole list in portions. It ends early if the client leaves, or if the database fails meanwhile."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except DATABASE_FAULTS as error:
            log_fault("list_cut_off", error, path=scope["path"])

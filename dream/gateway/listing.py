"""`GET /api/dreams/<id>/images`: the dream's pictures page by page, or all of them as one JSON array.

The array is read, encoded and sent in parts: thousands of pictures delay no other request and take little memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dream.db import images
from dream.errors import InvalidArguments
from dream.gateway.faults import DATABASE_FAULTS, log_fault
from dream.messages import MAX_ID_LENGTH
from dream.producer.listing import cursor_behind, image_info, parse_cursor

if TYPE_CHECKING:
    from dream.db import Database
    from dream.gateway.limits import User

__all__ = ["Wanted", "listing", "wanted_of"]

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000
#: Pictures of the whole list that are read at a time.
_PART = 250
#: A request that lists this many pictures counts as one more.
_AS_ONE_REQUEST = 100
_LIMIT = re.compile(r"[0-9]{1,4}", re.ASCII)
_TASK = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")


@dataclass(frozen=True)
class Wanted:
    """The pictures that a request asks for.

    Parameters:
      limit: the most pictures of one page; None means all pictures.
      after: position and id of the last picture of the page before.
      task_id: only the pictures of that upload.
    """

    limit: int | None = None
    after: tuple[int, int] | None = None
    task_id: str | None = None


@dataclass(frozen=True)
class _Part:
    """Some pictures of the list.

    Parameters:
      text: the pictures as JSON, without the brackets.
      count: how many pictures.
      rest_after: position and id of the last of them; None where no more follow.
    """

    text: str
    count: int
    rest_after: tuple[int, int] | None


def wanted_of(query: Mapping[str, str]) -> Wanted:
    """Parse the query.

    Raises:
      HTTPException: 400 where a parameter is wrong.
    """
    limit, cursor, task_id = query.get("limit"), query.get("cursor"), query.get("task_id")
    if limit is not None and not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= _MAX_LIMIT):
        raise HTTPException(400, f"limit must be a whole number from 1 to {_MAX_LIMIT}")
    if task_id is not None and not _TASK.fullmatch(task_id):
        raise HTTPException(400, "task_id must be the id of an upload, as its answer named it")
    is_paged = limit is not None or cursor is not None
    return Wanted(int(limit or _DEFAULT_LIMIT) if is_paged else None, _after(cursor), task_id)


def _after(cursor: str | None) -> tuple[int, int] | None:
    if cursor is None:
        return None
    try:
        return parse_cursor(cursor)
    except InvalidArguments:
        raise HTTPException(400, "cursor must be taken from a page's Link header; leave it out to begin anew") from None


async def listing(request: Request, database: Database, user: User, dream_id: int) -> Response:
    """The answer.

    Raises:
      HTTPException: 400 where a parameter is wrong.
    """
    wanted = wanted_of(request.query_params)
    read = partial(_read, database, user, dream_id, wanted.task_id)
    first = await read(wanted.after, wanted.limit or _PART)
    if wanted.limit is None:
        return _Whole(_texts(read, first))
    return Response(f"[{first.text}]", media_type="application/json", headers=_link(request, wanted, first.rest_after))


def _link(request: Request, wanted: Wanted, after: tuple[int, int] | None) -> dict[str, str]:
    """The header that names the next page (RFC 8288), if there is one."""
    if after is None:
        return {}
    query = {"limit": wanted.limit, "cursor": cursor_behind(*after)}
    if wanted.task_id is not None:
        query["task_id"] = wanted.task_id
    return {"Link": f'<{request.scope["path"]}?{urlencode(query)}>; rel="next"'}


async def _read(
    database: Database, user: User, dream_id: int, task_id: str | None, after: tuple[int, int] | None, limit: int
) -> _Part:
    async with user.turn:
        part = await run_in_threadpool(_part, database, dream_id, task_id, after, limit)
    user.requests.owe(part.count / _AS_ONE_REQUEST)
    return part


def _part(database: Database, dream_id: int, task_id: str | None, after: tuple[int, int] | None, limit: int) -> _Part:
    with database.read() as session:
        rows = images.page(session, dream_id, after=after, limit=limit + 1, task_id=task_id)
    shown = rows[:limit]
    text = json.dumps(list(map(image_info, shown)), separators=(",", ":"), ensure_ascii=False)[1:-1]
    return _Part(text, len(shown), (shown[-1].position, shown[-1].id) if len(rows) > limit else None)


async def _texts(read: Callable[..., Awaitable[_Part]], part: _Part) -> AsyncIterator[str]:
    yield f"[{part.text}"
    while part.rest_after is not None:
        part = await read(part.rest_after, _PART)
        if part.count:
            yield f",{part.text}"
    yield "]"


class _Whole(StreamingResponse):
    """The whole list in parts. The answer is cut off where the database fails meanwhile."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            await self.stream_response(send)
        except DATABASE_FAULTS as error:
            log_fault("list_cut_off", error, path=scope["path"])

"""The page of operators and its data: figures, failed tasks, replay and purge.

/ops                            the page; it has no data of its own
/api/ops                        figures (`dream.gateway.figures`)
/api/ops/failed[/{task_id}]     failed tasks, the newest first; one with its pictures
/api/ops/failed/replay, …/purge

Every address below `/api/ops` needs a token with the operator's claim. The token comes in a header alone, so no other
site can make a browser send it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from annotated_types import Len
from pydantic import ConfigDict, StringConstraints, TypeAdapter, with_config
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from typing_extensions import TypedDict

from dream.db import dead_letters, images
from dream.gateway.body import read_json
from dream.gateway.credentials import identify
from dream.gateway.faults import DATABASE_FAULTS
from dream.gateway.figures import FiguresAnswer
from dream.gateway.operations import Body, Parameter, Resource, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.log import get_logger
from dream.messages.states import owners_line
from dream.producer.dead_letters import purge, replay
from dream.work.messages import MAX_ID_LENGTH
from dream.work.text import is_text

if TYPE_CHECKING:
    from dream.db import DreamImage, DreamTask
    from dream.gateway.auth import Identity
    from dream.producer import Producer

__all__ = ["ROUTES"]

log = get_logger(__name__)

_PAGE = Path(__file__).with_name("static") / "ops" / "ops.html"
#: Failed tasks of one list, and tasks of one replay or purge.
_AT_ONCE = 100
_MOST_BYTES = 64 * 1024
#: Pictures that one failed task shows.
_MOST_PICTURES = 200
_LIMIT = re.compile(r"[0-9]{1,3}", re.ASCII)
#: A caller may have chosen the ID of a task: any text that a database can hold.
_CURSOR = re.compile(rf"([0-9]{{1,18}})-([^\x00]{{1,{MAX_ID_LENGTH}}})")


class FailedTask(TypedDict):
    """A failed task; times are in seconds since the epoch."""

    id: str
    task: str
    dream_id: int | None
    runs: int
    deaths: int
    created_at: float
    failed_at: float | None
    error: str | None
    error_code: str | None


class FailedPicture(TypedDict):
    """A picture of a failed task."""

    id: int
    filename: str
    state: str
    error: str | None
    error_code: str | None


class FailedTaskDetail(FailedTask):
    """A failed task with everything that helps to find the cause; `detail` is for operators alone."""

    detail: str | None
    images: list[FailedPicture]


@with_config(ConfigDict(extra="forbid"))
class TaskIds(TypedDict):
    """IDs of failed tasks."""

    ids: Annotated[
        list[Annotated[str, Len(1, MAX_ID_LENGTH), StringConstraints(pattern=r"^[^\x00]*$")]], Len(1, _AT_ONCE)
    ]


_TASK_IDS = TypeAdapter(TaskIds)


class Acted(TypedDict):
    """The tasks that were replayed or deleted, and those that were no longer failed."""

    done: list[str]
    gone: list[str]


@operation(
    "Open the page of operators", {200: Returns("the page", media_type="text/html; charset=utf-8")}, access="anybody"
)
async def show_page(_request: Request) -> Response:
    """The page of operators; it asks for a token."""
    return HTMLResponse(_page_text(), headers={"Cache-Control": "no-cache"})


@cache
def _page_text() -> str:
    return _PAGE.read_text(encoding="utf-8")


@operation("Read the figures of the running system", {200: Returns("the figures", FiguresAnswer)}, access="operator")
async def show_figures(request: Request) -> Response:
    """The figures of the running system, also while the database is away."""
    services, identity = await _operator(request)
    with suppress(*DATABASE_FAULTS):  # then no revocation can be read, and no row is shown
        await run_in_threadpool(services.authenticator.confirm, identity)
    return JSONResponse(await services.figures.look())


@operation(
    "List failed tasks",
    {200: Returns("the newest first", list[FailedTask], headers={"Link": "the next page, if there is one"})},
    refusals=(Code.QUERY_INVALID,),
    parameters=(
        Parameter("limit", {"type": "integer", "minimum": 1, "maximum": _AT_ONCE, "default": 50}, "tasks of a page"),
        Parameter("cursor", {"type": "string", "pattern": f"^{_CURSOR.pattern}$"}, "from the `Link` of a page"),
    ),
    access="operator",
)
async def list_failed(request: Request) -> Response:
    """Failed tasks, the newest first, page by page."""
    services, _ = await _confirmed(request)
    limit, after = _page_of(request)

    def read() -> list[DreamTask]:
        with services.connections.database.read() as session:
            return list(dead_letters.list_dead(session, limit=limit + 1, after=after))

    found = await run_in_threadpool(read)
    headers = {}
    if len(found) > limit:
        last = found[limit - 1]
        query = urlencode({"limit": limit, "cursor": _cursor_behind(last)})
        headers["Link"] = f'</api/ops/failed?{query}>; rel="next"'
    return JSONResponse([_listed(task) for task in found[:limit]], headers=headers)


@operation(
    "Read a failed task with its whole error and its pictures",
    {200: Returns("the task", FailedTaskDetail)},
    refusals=(Code.FAILED_TASK_NOT_FOUND,),
    access="operator",
)
async def show_failed(request: Request) -> Response:
    """A failed task with the whole error and its pictures."""
    services, _ = await _confirmed(request)
    task_id = request.path_params["task_id"]

    def read() -> tuple[DreamTask | None, list[DreamImage]]:
        with services.connections.database.read() as session:
            task = dead_letters.find(session, task_id) if is_text(task_id) else None
            return task, list(images.of_task(session, task_id))[:_MOST_PICTURES] if task else []

    task, pictures = await run_in_threadpool(read)
    if task is None:
        sentence = "no failed task has this ID; it may have been replayed, purged or removed"
        raise Refused(Code.FAILED_TASK_NOT_FOUND, sentence)
    shown = [
        FailedPicture(
            id=each.id,
            filename=each.filename,
            state=each.state,
            error=owners_line(each.error) or None,
            error_code=each.error_code,
        )
        for each in pictures
    ]
    detail = (task.error or "").partition("\n")[2] or None
    return JSONResponse(FailedTaskDetail(**_listed(task), detail=detail, images=shown))


_ACTED = {200: Returns("the IDs", Acted)}
_REFUSALS = (Code.BODY_INVALID, Code.BODY_TOO_LARGE)


@operation("Run failed tasks again", _ACTED, body=Body(TaskIds), refusals=_REFUSALS, access="operator")
async def replay_failed(request: Request) -> Response:
    """Run failed tasks again: 200 with the IDs of those that run, and of those that were no longer failed."""

    def replayed(producer: Producer, task_id: str) -> bool:
        return replay(producer, task_id)

    return await _act(request, "replay", replayed)


@operation("Delete failed tasks for good", _ACTED, body=Body(TaskIds), refusals=_REFUSALS, access="operator")
async def purge_failed(request: Request) -> Response:
    """Delete failed tasks and the bytes of their pictures, for good."""

    def purged(producer: Producer, task_id: str) -> bool:
        errors = purge(producer, task_id)
        for error in errors or ():
            log.warning("purged_bytes_stay", task_id=task_id, error=str(error))
        return errors is not None

    return await _act(request, "purge", purged)


async def _act(request: Request, action: str, act: Callable[[Producer, str], bool]) -> Response:
    services, identity = await _confirmed(request)
    given = await read_json(request, _TASK_IDS, '{"ids": ["…"]}', _MOST_BYTES)
    task_ids = list(dict.fromkeys(given["ids"]))
    done: list[str] = []
    gone: list[str] = []
    try:
        async with services.limits.of(identity.user_id).turn:
            for task_id in task_ids:
                is_done = await run_in_threadpool(partial(act, services.producer, task_id))
                (done if is_done else gone).append(task_id)
    finally:
        # In any case: a fault in the middle, or an operator who leaves, does not undo what was done.
        log.info("operator_acted", action=action, user=identity.user, task_ids=done)
    return JSONResponse(Acted(done=done, gone=gone))


async def _confirmed(request: Request) -> tuple[Services, Identity]:
    """Check that the request comes from an operator whose token was not revoked; see `_operator`."""
    services, identity = await _operator(request)
    return services, await run_in_threadpool(services.authenticator.confirm, identity)


async def _operator(request: Request) -> tuple[Services, Identity]:
    """Check the token of an operator by its signature.

    Raises:
      TokenRejected: the token is not accepted.
      Refused: 403 if the token is no operator's, 429 after too many requests.
    """
    services = services_of(request)
    identity = await identify(request)
    if not identity.is_operator:
        claim = services.settings.operator_claim
        raise Refused(Code.NOT_AN_OPERATOR, f"this needs the token of an operator, with the claim {claim}: true")
    return services, identity


def _page_of(request: Request) -> tuple[int, tuple[datetime, str] | None]:
    """The limit, and the end and id of the task before the page.

    Raises:
      Refused: 400
    """
    limit, cursor = request.query_params.get("limit", "50"), request.query_params.get("cursor")
    if not _LIMIT.fullmatch(limit) or not 0 < int(limit) <= _AT_ONCE:
        raise Refused(Code.QUERY_INVALID, f"limit must be a number from 1 to {_AT_ONCE}")
    if cursor is None:
        return int(limit), None
    found = _CURSOR.fullmatch(cursor)
    try:
        at = datetime.fromtimestamp(int(found[1]) / 1e6, UTC) if found else None
    except (OverflowError, OSError, ValueError):
        at = None
    if found is None or at is None:
        raise Refused(Code.QUERY_INVALID, "cursor must come from the Link of an earlier list")
    return int(limit), (at, found[2])


def _cursor_behind(task: DreamTask) -> str:
    at = task.finished_at or datetime.now(UTC)
    return f"{round(at.timestamp() * 1e6)}-{task.id}"


def _listed(task: DreamTask) -> FailedTask:
    return FailedTask(
        id=task.id,
        task=task.name,
        dream_id=task.args[0] if task.args and isinstance(task.args[0], int) else None,
        runs=task.attempts,
        deaths=task.deaths,
        created_at=task.created_at.timestamp(),
        failed_at=task.finished_at.timestamp() if task.finished_at else None,
        error=owners_line(task.error) or None,
        error_code=task.error_code,
    )


ROUTES = [
    Resource("/ops", GET=show_page),
    Resource("/api/ops", GET=show_figures),
    Resource("/api/ops/failed", GET=list_failed),
    Resource("/api/ops/failed/replay", POST=replay_failed),
    Resource("/api/ops/failed/purge", POST=purge_failed),
    Resource("/api/ops/failed/{task_id:path}", GET=show_failed),
]

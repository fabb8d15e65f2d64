"""Uploads over REST: files in a form.

A request with bad files is accepted without them; its answer says which were refused, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.errors import InvalidArguments, QuotaExceeded, Reason, TooManyPending
from dream.gateway.answers import AcceptedUpload
from dream.gateway.form import read_upload
from dream.gateway.images import owned
from dream.gateway.operations import Body, Returns, operation
from dream.gateway.refusals import Code
from dream.gateway.services import Services
from dream.messages.refusals import RefusedFile, all_refused_text
from dream.producer.backlog import check_backlog, check_quota

__all__ = ["upload"]

#: The fields of a form; files may be in any field.
_FORM = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
        "positions": {"type": "array", "items": {"type": "integer"}},
        "focus": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["files"],
}


@operation(
    "Upload pictures",
    {202: Returns("the task that processes the accepted files", AcceptedUpload)},
    refusals=(
        *(Code.FORM_INVALID, InvalidArguments, Code.TOO_MANY_FILES, Code.BODY_TOO_LARGE, Code.TYPE_NOT_ACCEPTED),
        *(QuotaExceeded, TooManyPending),
    ),
    body=Body(_FORM, "multipart/form-data"),
)
async def upload(request: Request) -> Response:
    """Accept pictures: 202 with the task's id, or an error after which nothing is stored.

    The answer lists refused files under `refused`; the others are accepted.
    """
    services, dream_id, owner = await owned(request)
    # A user at the limit is refused before the bytes are sent.
    await run_in_threadpool(_check_limits, services, dream_id, owner.user_id)
    async with read_upload(request, services.settings) as form, services.handing_over:
        if not form.files:
            return _all_refused(form.refused)
        accept = partial(services.producer.upload_images, user_id=owner.user_id)
        task_id = await run_in_threadpool(accept, dream_id, form.files, form.positions)
        answer = {"task_id": task_id, "dream_id": dream_id, "files": len(form.files), "refused": form.refused}
    return JSONResponse(answer, 202)


def _check_limits(services: Services, dream_id: int, user_id: int) -> None:
    settings, database = services.settings, services.connections.database
    check_backlog(settings, database, 1, dream_id, user_id)
    check_quota(settings, database, 1, user_id)


def _all_refused(refused: Sequence[RefusedFile]) -> Response:
    """The answer to a request of which no file is accepted."""
    code = refused[0]["code"]
    answer = {"error": all_refused_text(refused), "code": code, "refused": refused}
    return JSONResponse(answer, 413 if code == Reason.FILE_TOO_LARGE.code else 400)

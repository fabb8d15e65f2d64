"""Uploads over REST: files in a form, or put into the object store by the client itself.

A request with bad files is accepted without them; its answer says which were refused, and why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.errors import FilesRefused, InvalidArguments, KeyReused, QuotaExceeded, Reason, TooManyPending, UploadUnknown
from dream.gateway.answers import AnnouncedFiles, ErrorAnswer
from dream.gateway.body import json_object
from dream.gateway.form import read_upload, too_many_files
from dream.gateway.images import owned
from dream.gateway.operations import Body, Parameter, Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services
from dream.messages.direct import DirectUpload
from dream.messages.receipts import AcceptedUpload, RefusedFile, all_refused_text
from dream.producer import direct
from dream.producer.backlog import check_backlog, check_quota
from dream.producer.receipts import accepted_before, task_of_key, upload_once

if TYPE_CHECKING:
    from dream.gateway.form import Upload

__all__ = ["begin_upload", "complete_upload", "upload"]

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
#: Bytes for each file that a client announces, and for the rest of the body.
_BYTES_OF_FILE = 2048
_STATUS = {Reason.FILE_TOO_LARGE.code: 413, Reason.FILE_NOT_ARRIVED.code: 409, Reason.FILE_SIZE_DIFFERS.code: 409}

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
_KEY_HEADER = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[ -~]{1,255}$"},
    "A repeated request with the same key gets the answer to the first.",
    "header",
)


@operation(
    "Upload pictures",
    {202: Returns("the task that processes the accepted files", AcceptedUpload)},
    refusals=(
        *(Code.FORM_INVALID, InvalidArguments, Code.TOO_MANY_FILES, Code.BODY_TOO_LARGE, Code.TYPE_NOT_ACCEPTED),
        *(Code.IDEMPOTENCY_KEY_INVALID, KeyReused, QuotaExceeded, TooManyPending),
    ),
    parameters=(_KEY_HEADER,),
    body=Body(_FORM, "multipart/form-data"),
)
async def upload(request: Request) -> Response:
    """Accept pictures: 202 with the task's id, or an error after which nothing is stored.

    The answer lists refused files under `refused`; the others are accepted. With an `Idempotency-Key` a repeated
    request gets the first one's answer.
    """
    services, dream_id, owner = await owned(request)
    key = _key_of(request)
    # A user at the limit is refused before the bytes are sent.
    await run_in_threadpool(_check_limits, services, dream_id, owner.user_id, key)
    async with read_upload(request, services.settings) as form, services.handing_over:
        if not form.files:
            return _all_refused(form.refused)
        accepted = await run_in_threadpool(_accept, services, dream_id, owner.user_id, form, key)
    return JSONResponse(accepted, 202)


def _accept(services: Services, dream_id: int, user_id: int, form: Upload, key: str | None) -> AcceptedUpload:
    if key is not None:
        return upload_once(
            services.producer, dream_id, form.files, form.positions, form.refused, user_id=user_id, key=key
        )
    task_id = services.producer.upload_images(dream_id, form.files, form.positions, user_id=user_id)
    return {"task_id": task_id, "dream_id": dream_id, "files": len(form.files), "refused": form.refused}


def _key_of(request: Request) -> str | None:
    """The `Idempotency-Key` of the request; None if it has none.

    Raises:
      Refused: it is no text of 1 to 255 printable characters.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Refused(Code.IDEMPOTENCY_KEY_INVALID, "Idempotency-Key must have 1 to 255 printable ASCII characters")
    return key


def _check_limits(services: Services, dream_id: int, user_id: int, key: str | None) -> None:
    settings, database = services.settings, services.connections.database
    if key is not None and accepted_before(database, dream_id, task_of_key(user_id, dream_id, key)):
        return
    check_backlog(settings, database, 1, dream_id, user_id)
    check_quota(settings, database, 1, user_id)


@operation(
    "Begin a direct upload",
    {201: Returns("a presigned URL for each accepted file", DirectUpload)},
    refusals=(
        *(Code.BODY_INVALID, InvalidArguments, Code.TOO_MANY_FILES, Code.BODY_TOO_LARGE, Code.DIRECT_UPLOADS_OFF),
        *(QuotaExceeded, TooManyPending),
    ),
    body=Body(AnnouncedFiles),
)
async def begin_upload(request: Request) -> Response:
    """Begin a direct upload: 201 with a presigned URL for each file; refused files are listed beside them."""
    services, dream_id, owner = await owned(request)
    settings = services.settings
    if not settings.direct_upload_ttl_s:
        raise Refused(
            Code.DIRECT_UPLOADS_OFF, "direct uploads are off here; send the files as multipart/form-data to …/images"
        )
    most_bytes = _BYTES_OF_FILE * (settings.max_files_per_upload + 1)
    wanted = '{"files": [{"name": "a.jpg", "size": 123456, "type": "image/jpeg"}]}'
    given = await json_object(request, most_bytes, fields={"files"}, wanted=wanted)
    if isinstance(given["files"], list) and len(given["files"]) > settings.max_files_per_upload:
        raise too_many_files(settings.max_files_per_upload)
    begin = partial(direct.begin, user_id=owner.user_id)
    try:
        return JSONResponse(await run_in_threadpool(begin, services.producer, dream_id, given["files"]), 201)
    except FilesRefused as error:
        return _all_refused(error.refused)


@operation(
    "Complete a direct upload",
    {
        202: Returns("the task that processes the files that have arrived", AcceptedUpload),
        409: Returns("no file has arrived", ErrorAnswer),
    },
    refusals=(UploadUnknown,),
)
async def complete_upload(request: Request) -> Response:
    """Complete a direct upload: 202 as for an upload in a form; 409 if no file has arrived."""
    services, dream_id, _ = await owned(request)
    upload_id = request.path_params["upload_id"]
    try:
        return JSONResponse(await run_in_threadpool(direct.complete, services.producer, dream_id, upload_id), 202)
    except FilesRefused as error:
        return _all_refused(error.refused)


def _all_refused(refused: Sequence[RefusedFile]) -> Response:
    """The answer to a request of which no file is accepted."""
    code = refused[0]["code"]
    answer = {"error": all_refused_text(refused), "code": code, "refused": refused}
    return JSONResponse(answer, _STATUS.get(code, 400))

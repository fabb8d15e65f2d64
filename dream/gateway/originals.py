"""The requests for originals: the uploaded file as it came, for the owner of its dream (`DREAM_KEEP_ORIGINALS`).

An original may be any file, and it has private metadata: no cache keeps it, and no browser shows it as a page.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dream.errors import DreamError, ObjectMissing
from dream.gateway.faults import log_fault
from dream.gateway.images import image_of, owned
from dream.gateway.operations import Returns, operation
from dream.gateway.refusals import Code, Refused
from dream.messages.disposition import attachment
from dream.messages.states import ImageState

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.storage import Storage

__all__ = ["original"]

_PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
_TYPE = "application/octet-stream"


@operation(
    "Download the original of a picture",
    {
        200: Returns("the uploaded file", media_type=_TYPE),
        302: Returns("a presigned URL", media_type=None, headers={"Location": "the URL"}),
    },
    refusals=(Code.ORIGINAL_NOT_FOUND,),
)
async def original(request: Request) -> Response:
    """Give the original: a redirect to a signed URL in redirect mode, else the file itself; 404 if there is none."""
    services, dream_id, _ = await owned(request)
    image = await run_in_threadpool(image_of, services, dream_id, int(request.path_params["image_id"]))
    if image is None or image.state is not ImageState.COMPLETED or not image.original_key:
        raise Refused(Code.ORIGINAL_NOT_FOUND, "there is no original of such a picture in this dream")
    if request.method == "HEAD":  # the store's signed URL is for a GET
        return Response(headers=_about(image, image.original_bytes), media_type=_TYPE)
    storage = services.connections.storage
    if services.settings.media_mode == "redirect":
        return RedirectResponse(await run_in_threadpool(storage.original_url, image), 302, _PRIVATE)
    return await _streamed(storage, image)


async def _streamed(storage: Storage, image: DreamImage) -> Response:
    """The file in portions: a thread waits for each portion of the store, and none waits for the client."""
    try:
        portions, size_bytes = await run_in_threadpool(
            storage.read_in_portions, image.original_bucket or "", image.original_key or ""
        )
    except ObjectMissing:
        raise Refused(Code.ORIGINAL_NOT_FOUND, "there is no original of such a picture in this dream") from None
    return _Streamed(portions, headers=_about(image, size_bytes), media_type=_TYPE)


def _about(image: DreamImage, size_bytes: int | None) -> dict[str, str]:
    size = {} if size_bytes is None else {"Content-Length": str(size_bytes)}
    return {**size, "Content-Disposition": attachment(image.filename), **_PRIVATE}


class _Streamed(StreamingResponse):
    """The file. It ends early if the client leaves, and so does the store's answer; or if the store fails meanwhile."""

    def __init__(self, portions: Generator[bytes], **how: Any) -> None:
        super().__init__(portions, **how)
        self._portions = portions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except DreamError as error:
            log_fault("original_cut_off", error, path=scope["path"])
        finally:
            self._portions.close()

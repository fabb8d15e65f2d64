"""The focal point of a stored picture over REST: `PUT …/images/<id>/focus` with `{"focus": [x, y]}`, or with null."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dream.gateway.answers import Focus, FocusOfImage
from dream.gateway.body import read_json
from dream.gateway.images import no_such_image, owned
from dream.gateway.operations import Body, Returns, operation
from dream.gateway.refusals import Code
from dream.messages.arguments import MAX_ID, check_focus
from dream.pictures.focus import give_focus

__all__ = ["put_focus"]

_MOST_BYTES = 1024
_EXAMPLE = '{"focus": [0.5, 0.3]}, or {"focus": null} for the found point'
_FOCUS = TypeAdapter(Focus)


@operation(
    "Give a picture its focal point",
    {200: Returns("both points", FocusOfImage)},
    refusals=(Code.IMAGE_NOT_FOUND, Code.BODY_INVALID, Code.BODY_TOO_LARGE),
    body=Body(Focus),
)
async def put_focus(request: Request) -> Response:
    """Give a picture its focal point, or take it back: 200 with both points, 404 if the dream lacks the picture."""
    services, dream_id, _ = await owned(request)
    image_id = int(request.path_params["image_id"])
    given = await read_json(request, _FOCUS, _EXAMPLE, _MOST_BYTES)
    focus = check_focus(given["focus"], "focus")
    image = None
    if 0 < image_id <= MAX_ID:
        image = await run_in_threadpool(give_focus, services.producer, dream_id, image_id, focus)
    if image is None:
        raise no_such_image()
    return JSONResponse({"dream_id": dream_id, "id": image_id, "focus": image.focus, "found_focus": image.found_focus})

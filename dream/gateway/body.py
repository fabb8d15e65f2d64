"""Read the JSON body of a request, within a size and in a shape."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from dream.gateway.refusals import Code, Refused

__all__ = ["json_object", "read_json"]

T = TypeVar("T")


async def read_json(request: Request, shape: TypeAdapter[T], example: str, most_bytes: int) -> T:
    """The body in a shape of `dream.gateway.answers`.

    Parameters:
      example: a right body, for the sentence about a wrong one.

    Raises:
      Refused: 400 if it is no JSON of this shape, 413 if it is too long.
    """
    body = await _read(request, most_bytes)
    try:
        return shape.validate_json(body)
    except ValidationError as error:
        sentence = f"the body must be JSON like {example}; {_mistake(error)}"
        raise Refused(Code.BODY_INVALID, sentence) from None


async def json_object(request: Request, most_bytes: int, *, fields: set[str], wanted: str) -> dict[str, Any]:
    """The body, a JSON object that has exactly these fields.

    Parameters:
      wanted: the body that is wanted, for the error.

    Raises:
      Refused: 400 if the body is no such JSON, 413 if it is too long.
    """
    body = await _read(request, most_bytes)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or given.keys() != fields:
        raise Refused(Code.BODY_INVALID, f"the body must be JSON: {wanted}")
    return given


async def _read(request: Request, most_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise Refused(Code.BODY_TOO_LARGE, f"the body has more than the {most_bytes} bytes allowed")
    return bytes(body)


def _mistake(error: ValidationError) -> str:
    """The first mistake, with its place: `positions[0].id: input should be a valid integer`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{each}]" if isinstance(each, int) else f".{each:.50}" for each in first["loc"]).lstrip(".")
    said = first["msg"][:1].lower() + first["msg"][1:]
    return f"{place}: {said}" if place else said

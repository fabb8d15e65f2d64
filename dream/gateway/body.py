"""The JSON body of a request, within a limit."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from dream.gateway.refusals import Code, Refused

__all__ = ["json_object"]


async def json_object(request: Request, most_bytes: int, *, fields: set[str], wanted: str) -> dict[str, Any]:
    """Read a JSON object that has exactly these fields.

    Parameters:
      wanted: the body that is wanted, for the error.

    Raises:
      Refused: 400 if the body is no such JSON, 413 if it is too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise Refused(Code.BODY_TOO_LARGE, f"the body has more than the {most_bytes} bytes allowed")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or given.keys() != fields:
        raise Refused(Code.BODY_INVALID, f"the body must be JSON: {wanted}")
    return given

"""The operations of the HTTP API: each is described beside the function that serves it.

    @operation("Delete a picture", {202: Returns("the task", Accepted)}, refusals=(Code.IMAGE_NOT_FOUND,))
    async def delete_image(request: Request) -> Response: ...

    Resource("/api/dreams/{dream_id:id}/images/{image_id:id}", GET=show_image, DELETE=delete_image)

`dream.gateway.openapi` makes the document of these descriptions. A test fails if an operation has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dream.errors import DreamError
from dream.gateway.refusals import Code

__all__ = ["JSON", "Access", "Body", "Operation", "Parameter", "Refusal", "Resource", "Returns", "operation"]

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
Served = TypeVar("Served", bound=Endpoint)
Refusal = Code | type[DreamError]
#: `owner`: a token of the dream's owner; `user`: any token; `operator`: one with the operator's claim; `anybody`: none.
Access = Literal["owner", "user", "operator", "anybody"]
JSON = "application/json"
#: The operations by their functions.
_OPERATIONS: dict[Any, Operation] = {}


@dataclass(frozen=True)
class Returns:
    """An answer to a request that is not refused.

    Parameters:
      means: the content in a few words.
      content: the type of the JSON, such as a TypedDict; None if the body is no JSON.
      media_type: the type of the body; None if there is no body.
      headers: the names of further headers, and their meanings.
    """

    means: str
    content: Any = None
    media_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query or a header.

    Parameters:
      schema: its values, as JSON Schema.
    """

    name: str
    schema: Mapping[str, Any]
    means: str
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True)
class Body:
    """The body of a request.

    Parameters:
      content: the type of the JSON, or a JSON Schema if the body is no JSON.
    """

    content: Any
    media_type: str = JSON
    is_required: bool = True


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one address.

    Parameters:
      summary: the operation in a few words.
      answers: its answers by their status.
      refusals: the reasons for which it refuses a request, besides those of its `access` and of every request.
      access: the token that it needs.
    """

    summary: str
    answers: Mapping[int, Returns]
    refusals: Sequence[Refusal] = ()
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    access: Access = "owner"


def operation(summary: str, answers: Mapping[int, Returns], **about: Any) -> Callable[[Served], Served]:
    """Describe the function that serves an operation. Arguments as of `Operation`."""

    def described(served: Served) -> Served:
        _OPERATIONS[served] = Operation(summary=summary, answers=answers, **about)
        return served

    return described


class Resource(Route):
    """An address with a function for each method, so that the `Allow` header of a 405 names all of them.

    Parameters:
      path: the address.
      handlers: the functions by their methods; that of GET serves HEAD too.
    """

    def __init__(self, path: str, **handlers: Endpoint) -> None:
        super().__init__(path, self._serve, methods=list(handlers), name=path)
        self.app = self._answer  # Starlette's own wrapper catches errors, which the application catches anyway
        self.handlers = handlers

    def operation_of(self, method: str) -> Operation:
        """The description of a method.

        Raises:
          KeyError: its function is not described.
        """
        return _OPERATIONS[self.handlers[method]]

    async def _serve(self, request: Request) -> ASGIApp:
        method = request.method
        return await self.handlers["GET" if method == "HEAD" else method](request)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._serve(Request(scope, receive, send))
        await answer(scope, receive, send)

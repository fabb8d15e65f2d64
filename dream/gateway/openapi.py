"""The OpenAPI 3.1 document of the gateway, made of its routes and of the descriptions beside their functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from starlette.routing import BaseRoute

from dream import errors
from dream.errors import DreamError, Reason, TokenRejected
from dream.gateway.answers import ErrorAnswer
from dream.gateway.faults import SERVER_FAULTS, STATUSES
from dream.gateway.operations import JSON, Access, Operation, Refusal, Resource, Returns
from dream.gateway.refusals import Code
from dream.messages.arguments import MAX_ID
from dream.version import __version__

__all__ = ["document"]

#: The JSON types of bodies, each with its schema.
Schemas = Sequence[tuple[Any, Any]]
_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_OF_CONVERTORS: Mapping[str | None, Mapping[str, Any]] = {
    "id": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID},
    "path": {"type": "string", "minLength": 1},
    None: {"type": "string", "minLength": 1},
}
#: Every request may meet these.
_ALWAYS: Sequence[Refusal] = (
    Code.REQUEST_MALFORMED,
    Code.REQUEST_TOO_SLOW,
    Code.TOO_MANY_CONNECTIONS,
    Code.HEAD_TOO_LARGE,
    Code.GATEWAY_FULL,
)
_OF_USERS: Sequence[Refusal] = (TokenRejected, Code.TOO_MANY_REQUESTS, *SERVER_FAULTS)
_OF_ACCESS: Mapping[Access, Sequence[Refusal]] = {
    "owner": (*_OF_USERS, Code.DREAM_NOT_YOURS, Code.DREAM_NOT_FOUND),
    "user": _OF_USERS,
    "operator": (*_OF_USERS, Code.NOT_AN_OPERATOR),
    "anybody": (),
}
_RETRY = {"Retry-After": "seconds until the next attempt"}
_HEADERS: Mapping[int, Mapping[str, str]] = {401: {"WWW-Authenticate": "`Bearer`"}, 429: _RETRY, 503: _RETRY}


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The document.

    Parameters:
      routes: those of the application; all but `Resource`s are left out: sockets, and files of the page.
    """
    resources = [route for route in routes if isinstance(route, Resource)]
    operations = [(route, method, route.operation_of(method)) for route in resources for method in route.handlers]
    schemas, components = _schemas([each for *_, each in operations])
    paths: dict[str, dict[str, Any]] = {}
    for route, method, described in operations:
        path = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
        path[method.lower()] = _operation(route, method, described, schemas)
    components["ErrorAnswer"]["properties"]["code"]["enum"] = sorted(_codes())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dream gateway",
            "version": __version__,
            "summary": "Upload, list, change and show the pictures of dreams.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _codes() -> set[str]:
    own = {getattr(errors, name).code for name in errors.__all__ if name != "Reason"}
    return own | {each.code for each in Code} | {each.code for each in Reason}


def _types(operations: Iterable[Operation]) -> list[Any]:
    """The Python types of all JSON bodies."""
    types: list[Any] = [ErrorAnswer]
    for each in operations:
        bodies = [each.body] if each.body else []
        found = [answer.content for answer in each.answers.values()] + [body.content for body in bodies]
        types += [content for content in found if _is_type(content) and content not in types]
    return types


def _is_type(content: Any) -> bool:
    return content is not None and not isinstance(content, Mapping)


def _schemas(operations: Sequence[Operation]) -> tuple[Schemas, dict[str, Any]]:
    """The schema of each type, and the components that they name."""
    types = _types(operations)
    adapters = [(index, "serialization", TypeAdapter(each)) for index, each in enumerate(types)]
    found, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REF)  # type: ignore[arg-type]
    schemas = [(each, found[index, "serialization"]) for index, each in enumerate(types)]
    return schemas, definitions["$defs"]


def _content(content: Any, media_type: str, schemas: Schemas) -> dict[str, Any]:
    known = next((schema for each, schema in schemas if each == content), None)
    return {media_type: {"schema": known or content or {}}}


def _operation(
    route: Resource, method: str, described: Operation, schemas: Sequence[tuple[Any, Any]]
) -> dict[str, Any]:
    answers = {str(status): _answer(each, schemas) for status, each in described.answers.items()}
    made: dict[str, Any] = {
        "operationId": route.handlers[method].__name__.lstrip("_"),
        "summary": described.summary,
        "parameters": [*_of_path(route), *map(_parameter, described.parameters)],
        "responses": answers | _refused(described, schemas),
    }
    if described.access != "anybody":
        made["security"] = [{"token": []}]
    if described.body is not None:
        content = _content(described.body.content, described.body.media_type, schemas)
        made["requestBody"] = {"required": described.body.is_required, "content": content}
    return made


def _of_path(route: Resource) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _OF_CONVERTORS[kind or None]}
        for name, kind in _PARAMETER.findall(route.path)
    ]


def _parameter(each: Any) -> dict[str, Any]:
    return {"name": each.name, "in": each.place, "description": each.means, "schema": each.schema}


def _answer(answer: Returns, schemas: Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.means}
    if answer.headers:
        made["headers"] = {name: _header(means) for name, means in answer.headers.items()}
    if answer.media_type is not None and (answer.content is not None or answer.media_type != JSON):
        made["content"] = _content(answer.content, answer.media_type, schemas)
    return made


def _header(means: str) -> dict[str, Any]:
    return {"description": means, "schema": {"type": "string"}}


def _refused(described: Operation, schemas: Schemas) -> dict[str, Any]:
    by_status: dict[int, set[str]] = {}
    for each in (*described.refusals, *_OF_ACCESS[described.access], *_ALWAYS):
        by_status.setdefault(_status_of(each), set()).add(each.code)
    return {
        str(status): {
            "description": ", ".join(f"`{code}`" for code in sorted(codes)),
            "headers": {name: _header(means) for name, means in _HEADERS.get(status, {}).items()},
            "content": _content(ErrorAnswer, JSON, schemas),
        }
        for status, codes in sorted(by_status.items())
        if status not in described.answers
    }


def _status_of(refusal: Refusal) -> int:
    if isinstance(refusal, Code):
        return refusal.status
    assert issubclass(refusal, DreamError)  # noqa: S101 (narrowing)
    return STATUSES.get(refusal, 503)

"""The document of the HTTP API: it has every route, and nothing that is in no route."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dream.gateway.app import document_text, routes
from dream.gateway.openapi import document
from dream.gateway.operations import Resource, Returns, operation
from dream.gateway.refusals import Code

DOCUMENT: dict[str, Any] = json.loads(document_text())
OPERATIONS = [(path, method, each) for path, methods in DOCUMENT["paths"].items() for method, each in methods.items()]


def test_every_route_over_http_is_a_resource_with_its_operations() -> None:
    assert [route for route in routes() if isinstance(route, Route) and not isinstance(route, Resource)] == []
    served = {(path, method.upper()) for path, method, _ in OPERATIONS}
    assert len(served) == sum(len(route.handlers) for route in routes() if isinstance(route, Resource))


def test_a_route_whose_function_is_not_described_is_an_error() -> None:
    async def secret(_request: Request) -> Response:
        return Response()

    with pytest.raises(KeyError):
        document([Resource("/secret", GET=secret)])
    described = operation("x", {200: Returns("x")}, refusals=(Code.IMAGE_NOT_FOUND,))(secret)
    made = document([Resource("/secret/{image_id:id}", GET=described)])["paths"]["/secret/{image_id}"]["get"]
    assert {"200", "404", "401", "429", "503"} <= made["responses"].keys()
    assert made["parameters"][0]["name"] == "image_id"


def test_each_operation_has_a_name_of_its_own_and_a_summary() -> None:
    names = [each["operationId"] for _, _, each in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(each["summary"][0].isupper() and not each["summary"].endswith(".") for _, _, each in OPERATIONS)


def test_each_error_in_the_document_is_the_shape_with_a_code() -> None:
    errors = [
        answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for path, _, each in OPERATIONS
        for status, answer in each["responses"].items()
        if status[0] in "45" and path != "/readyz"
    ]
    assert set(errors) == {"ErrorAnswer"}
    codes = DOCUMENT["components"]["schemas"]["ErrorAnswer"]["properties"]["code"]["enum"]
    assert {each.code for each in Code} <= set(codes)

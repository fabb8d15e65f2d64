"""The OpenAPI document is true: a gateway answers what it says, to right requests and to wrong ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from dream.gateway.app import document_text
from dream.messages.states import ImageState
from tests.gateway import DREAM, Gateway, auth, emptied, running

DOCUMENT: dict[str, Any] = json.loads(document_text())
OPERATIONS = [(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods]
#: A stream has no end.
UNASKED = "/events"
#: Asked by `make test` too.
QUICK = [("/api/dreams/{dream_id}/images", "GET"), ("/api/dreams/{dream_id}/images", "PATCH")]
FUZZ = int(os.environ.get("DREAM_TEST_FUZZ", "1"))


@pytest.fixture(scope="module")
def unlimited(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, list[int]]]:
    """A gateway whose users may ask as often as they like, with pictures in every state."""
    with running(tmp_path_factory.mktemp("openapi"), servers, DREAM_MAX_REQUESTS_PER_USER_S="0") as gateway:
        emptied(gateway)
        yield gateway, [gateway.add_image(state, number=number) for number, state in enumerate(list(ImageState) * 2)]


def check(gateway: Gateway, ids: list[int], path: str, method: str, examples: int) -> None:
    """Ask with right and with wrong data, and compare each answer with the document."""
    # Each process of pytest collects this module, and this import takes seconds.
    import hypothesis
    import schemathesis
    from hypothesis import strategies
    from schemathesis.core.parameters import ParameterLocation

    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=str(gateway.http.base_url))
    operation = schema[path][method]
    kinds = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=strategies.one_of(kinds), image_id=strategies.sampled_from([None, *ids]))
    def ask(case: Any, image_id: int | None) -> None:
        wrong = {place for place, part in case.meta.components.items() if part.mode.is_negative}
        hypothesis.assume(wrong != {ParameterLocation.HEADER})  # the token below replaces a wrong one
        if image_id is not None and ParameterLocation.PATH not in wrong:  # a picture that is there
            known = {"dream_id": DREAM, "image_id": image_id}
            case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
        case.call_and_validate(headers=auth(), excluded_checks=[schemathesis.checks.positive_data_acceptance])

    ask()


@pytest.mark.parametrize(
    ("path", "method"),
    [
        pytest.param(path, method, marks=() if (path, method) in QUICK else pytest.mark.slow)
        for path, method in OPERATIONS
        if not path.endswith(UNASKED)
    ],
)
def test_a_gateway_answers_as_its_document_says(unlimited: tuple[Gateway, list[int]], path: str, method: str) -> None:
    gateway, ids = unlimited
    check(gateway, ids, path, method, 6 * FUZZ)
    assert gateway.process.poll() is None
    assert '"status": 500' not in gateway.log.read_text()


def test_the_document_is_served(gateway: Gateway) -> None:
    assert gateway.http.get("/openapi.json").json() == DOCUMENT

"""Positions as forms write them, and the policy that the page is served with."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from dream.gateway.form import parse_positions
from dream.gateway.headers import content_security_policy
from dream.settings import Settings


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        ([""], None),
        (["[]"], None),
        (["7"], [7]),
        (["1", "2"], [1, 2]),
        (["1, 2"], [1, 2]),
        (["[1,2]"], [1, 2]),
    ],
)
def test_positions_are_read_in_every_form(texts: list[str], expected: list[int] | None) -> None:
    """Repeated fields, commas and a JSON list mean the same; none means none."""
    assert parse_positions(texts) == expected


@pytest.mark.parametrize("text", ["x", "1.5", "[1.5]", "[true]", "[[1]]", "[1", "1;2", "[" * 5000])
def test_a_position_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(HTTPException) as error:
        parse_positions([text])
    assert error.value.status_code == 400


def test_pictures_may_come_from_where_they_lie_and_nowhere_else() -> None:
    """The policy names the gateway, the store (path and virtual-host style) and the CDN."""
    settings = Settings(
        s3_endpoint_url="https://oss.example.com",
        public_url="https://cdn.example.org/x",
        gateway_url="https://d.example.net",
    )
    images = next(part for part in content_security_policy(settings).split("; ") if part.startswith("img-src"))
    assert images.split() == [
        *("img-src", "'self'", "blob:", "data:", "https://*.oss.example.com"),
        *("https://cdn.example.org", "https://d.example.net", "https://oss.example.com"),
    ]

"""Positions as forms write them, and the policy that the page is served with."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from dream.errors import InvalidArguments
from dream.gateway.form import parse_focus, parse_positions
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


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], [None, None]),
        (["[]"], [None, None]),
        (["0.5,0.25", "1, 0"], [[0.5, 0.25], [1, 0]]),
        (["0.5,0.25", ""], [[0.5, 0.25], None]),
        (["null", "[0.5, 0.25]"], [None, [0.5, 0.25]]),
        (["[[0.5, 0.25], null]"], [[0.5, 0.25], None]),
    ],
)
def test_focal_points_are_read_in_every_form(texts: list[str], expected: list[list[float] | None]) -> None:
    """Repeated fields and a JSON list mean the same; empty and null mean none."""
    assert parse_focus(texts, ["a.jpg", "b.jpg"]) == expected


@pytest.mark.parametrize("text", ["0.5,0.25", "[0.5, 0.25]", "[[0.5, 0.25]]"])
def test_one_file_may_have_its_focal_point_alone(text: str) -> None:
    assert parse_focus([text], ["a.jpg"]) == [[0.5, 0.25]]


@pytest.mark.parametrize("text", ["x", "0.5;0.5", "[0.5", "[" * 5000, "nullify", "[1e", "[" + "9" * 5000 + ",0]"])
def test_a_focal_point_that_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(HTTPException) as error:
        parse_focus([text], ["a.jpg"])
    assert error.value.status_code == 400


@pytest.mark.parametrize(
    "text", ["0.5", "1,2", "nan,0", "0,inf", "[1e999, 0]", "[true, 0]", "[NaN, 0]", '["0", 0]', "[{}]"]
)
def test_a_focal_point_outside_the_picture_names_its_file(text: str) -> None:
    with pytest.raises(InvalidArguments, match=r"a\.jpg: focus must be"):
        parse_focus([text], ["a.jpg"])


@pytest.mark.parametrize("texts", [["0.5,0.5"], ["[0.5, 0.5]"], ["[null]"], ["0,0", "0,0", "0,0"]])
def test_each_file_needs_a_focal_point_or_null(texts: list[str]) -> None:
    with pytest.raises(HTTPException, match=r"2 files but \d focal points?: each file needs one, or null"):
        parse_focus(texts, ["a.jpg", "b.jpg"])


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


def test_pictures_through_nginx_come_from_the_gateways_origin_alone() -> None:
    settings = Settings(
        s3_endpoint_url="https://oss.example.com", gateway_url="https://d.example.net", media_mode="accel"
    )
    assert "oss.example.com" not in content_security_policy(settings)
    assert "https://d.example.net" in content_security_policy(settings)

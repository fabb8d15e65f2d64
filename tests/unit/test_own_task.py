"""Celery's options of a call of a task of dream's own: each has a meaning or is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dream.celery.own_task import parse
from dream.errors import InvalidArguments


def test_without_options_a_task_goes_out_at_once_under_a_new_id() -> None:
    (first, delivery), (second, _) = parse("t", {}), parse("t", {})
    assert first != second
    assert (delivery.due_in_s, delivery.queue, delivery.is_sent) == (0, None, True)


def test_none_counts_as_not_given() -> None:
    """Callers pass options on that were not given to them."""
    _, delivery = parse("t", {"expires": None, "link": None, "countdown": None, "task_id": None, "queue": None})
    assert delivery.due_in_s == 0


@pytest.mark.parametrize("hours", [-5, 0, 9])
def test_an_eta_becomes_a_delay_whatever_its_time_zone(hours: int) -> None:
    eta = datetime.now(timezone(timedelta(hours=hours))) + timedelta(seconds=90)
    _, delivery = parse("t", {"eta": eta})
    assert delivery.due_in_s == pytest.approx(90, abs=5)


def test_a_naive_eta_is_in_the_configured_time_zone() -> None:
    """UTC where nothing is configured."""
    _, delivery = parse("t", {"eta": datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=60)})
    assert delivery.due_in_s == pytest.approx(60, abs=5)


def test_an_eta_may_be_written_as_iso_8601() -> None:
    """As Celery takes it, and as a message carries it."""
    _, delivery = parse("t", {"eta": (datetime.now(UTC) + timedelta(seconds=90)).isoformat()})
    assert 85 < delivery.due_in_s <= 90


def test_an_eta_that_has_passed_is_now() -> None:
    _, delivery = parse("t", {"eta": datetime(2020, 1, 1, tzinfo=UTC)})
    assert delivery.due_in_s == 0


def test_countdown_goes_before_eta() -> None:
    _, delivery = parse("t", {"countdown": 7, "eta": datetime(2020, 1, 1, tzinfo=UTC)})
    assert delivery.due_in_s == 7


def test_a_priority_belongs_to_the_delivery() -> None:
    assert [parse("t", given)[1].priority for given in ({}, {"priority": 0}, {"priority": 200})] == [None, 0, 200]


@pytest.mark.parametrize("option", ["queue", "routing_key"])
def test_a_task_may_be_put_on_either_queue(option: str) -> None:
    assert parse("t", {option: "default"})[1].queue == "default"


@pytest.mark.parametrize(
    "options",
    [
        {"serializer": "json"},
        {"ignore_result": True},
        {"retry": False, "retry_policy": {}},
        {"exchange": "media", "compression": "gzip"},
    ],
)
def test_what_changes_nothing_is_accepted(options: dict[str, Any]) -> None:
    parse("t", options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("link", object()),
        ("link_error", object()),
        ("headers", {"a": 1}),
        ("time_limit", 5),
        ("no_such_option", 1),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidArguments, match=f"'{option}' is not supported"):
        parse("t", {option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("countdown", "60"),
        ("countdown", float("nan")),
        ("countdown", 10**12),
        ("eta", "2030-01-01"),
        ("queue", "celery"),
        ("serializer", "pickle"),
        ("priority", "high"),
        ("task_id", ""),
        ("task_id", "x" * 156),
        ("task_id", 7),
        ("task_id", "\x00"),
        ("task_id", "\ud800"),
        ("expires", 1e18),
        ("expires", -1e18),
        ("countdown", 10**400),
    ],
)
def test_a_wrong_value_is_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidArguments):
        parse("t", {option: value})


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
@pytest.mark.parametrize("hours", [-23, 0, 23])
def test_a_moment_that_no_database_has_a_date_for_is_long_ago_or_never(moment: datetime, hours: int) -> None:
    """A row that cannot be read again would stop the sweep of all others."""
    _, delivery = parse("t", {"expires": moment.replace(tzinfo=timezone(timedelta(hours=hours)))})
    assert delivery.expires_in_s is not None
    assert 1000 < (datetime.now(UTC) + timedelta(seconds=delivery.expires_in_s)).year < 4000


def test_expires_is_seconds_or_a_moment() -> None:
    """As in Celery: a number of seconds, or a datetime; the past is allowed and revokes."""
    _, delivery = parse("t", {"expires": 60})
    assert delivery.expires_in_s == 60
    _, delivery = parse("t", {"expires": datetime.now(UTC) - timedelta(seconds=5)})
    assert delivery.expires_in_s is not None
    assert -6 < delivery.expires_in_s < -4
    with pytest.raises(InvalidArguments, match="expires must be a number of seconds"):
        parse("t", {"expires": "soon"})

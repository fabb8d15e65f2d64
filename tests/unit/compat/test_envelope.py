"""The message of a task that a caller defined: its JSON is what other processes and releases read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dramatiq import Message

from dream.compat.envelope import Envelope

PLAIN = {
    "queue_name": "default",
    "actor_name": "shop.add",
    "args": [1, 2],
    "kwargs": {},
    "options": {"delivery_id": "a1:0", "celery": {}},
    "message_id": "a1",
}
FULL = {
    "queue_name": "eu.mail",
    "actor_name": "shop.add",
    "args": [],
    "kwargs": {"x": 1},
    "options": {
        "delivery_id": "a1:2",
        "celery": {
            "eta": "2030-01-01T00:00:00+00:00",
            "expires": "2030-01-02T00:00:00+00:00",
            "root_id": "r1",
            "parent_id": "p1",
            "group": "g1",
            "ignore_result": True,
            "timelimit": [30, 20],
            "link": [{"task": "shop.next", "args": [], "kwargs": {}}],
            "link_error": [{"task": "shop.failed", "args": [], "kwargs": {}}],
            "headers": {"tenant": 7},
            "shadow": "adding",
            "origin": "1@host",
            "priority": 0,
            "delivery_info": {"exchange": "shop"},
            "correlation_id": "c1",
            "reply_to": "q1",
            "properties": {"app_id": "shop"},
            "retries": 2,
        },
    },
    "message_id": "a1",
}


def as_json(envelope: Envelope, queue_prefix: str = "") -> dict[str, Any]:
    message: dict[str, Any] = json.loads(envelope.to_message(queue_prefix).encode())
    assert message.pop("message_timestamp") > 0
    return message


def read(message: dict[str, Any], queue_prefix: str = "") -> Envelope:
    return Envelope.from_message(Message.decode(json.dumps({**message, "message_timestamp": 1}).encode()), queue_prefix)


def test_what_is_at_its_default_is_not_written() -> None:
    assert as_json(Envelope(task="shop.add", id="a1", args=(1, 2))) == PLAIN


def test_what_is_set_is_written_and_read_again() -> None:
    assert as_json(read(FULL, "eu."), "eu.") == FULL


def test_a_message_that_dramatiq_wrote_has_everything_at_its_default() -> None:
    envelope = read({**PLAIN, "options": {}})
    assert envelope == Envelope(task="shop.add", id="a1", args=(1, 2))


def test_what_a_later_release_adds_is_left_out() -> None:
    newer = {**PLAIN, "options": {"celery": {"retries": 1, "colour": "red"}}}
    assert read(newer).retries == 1


def test_a_periodic_run_is_one_of_its_entrys_series_and_its_retries_are_not() -> None:
    run = Envelope(task="t", id="a", headers={"periodic_task_name": "tick"})
    assert run.to_message().options["series"] == "tick"
    assert "series" not in replace(run, retries=1).to_message().options


def test_a_delayed_message_is_read_as_that_of_its_queue() -> None:
    assert read({**PLAIN, "queue_name": "default.DQ"}).queue == "default"


def test_when_it_is_due_and_when_it_is_not_wanted_any_more() -> None:
    def at(seconds: float) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()

    assert Envelope(task="t", id="a").delay_s == Envelope(task="t", id="a", eta=at(-5)).delay_s == 0
    assert 50 < Envelope(task="t", id="a", eta=at(60)).delay_s <= 60
    assert Envelope(task="t", id="a", expires=at(-1)).has_expired
    assert not Envelope(task="t", id="a", expires=at(60)).has_expired

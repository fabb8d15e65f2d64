"""Parked messages of the bridge in their exact JSON: a later release replays them, and operators read them."""

from __future__ import annotations

from datetime import datetime

import pytest

from dream.bridge.parked import Parked
from dream.bridge.protocol import Taken

AT = "2026-01-02T03:04:05+00:00"
MESSAGE = {"headers": {"task": "shop.add", "id": "a1"}, "body": "W10="}
#: By the ids under which they are kept.
GOLDEN = {
    "a1b26bf8bb31eda8": (
        Parked(Taken("7", "celery", MESSAGE), "no worker knows it", AT),
        '{"reason": "no worker knows it", "at": "2026-01-02T03:04:05+00:00", "queue": "celery", '
        '"message": {"headers": {"task": "shop.add", "id": "a1"}, "body": "W10="}}',
    ),
    "451e9ed307807822": (
        Parked(Taken("8", "celery", b"\xff no message"), "it is none", AT),
        '{"reason": "it is none", "at": "2026-01-02T03:04:05+00:00", "queue": "celery", "bytes": "/yBubyBtZXNzYWdl"}',
    ),
}


@pytest.mark.parametrize(("parked_id", "parked", "text"), [(name, *each) for name, each in GOLDEN.items()])
def test_golden_what_is_parked(parked_id: str, parked: Parked, text: str) -> None:
    assert (parked.id, parked.encode()) == (parked_id, text)
    again = Parked.decode(parked_id, text)
    assert again == Parked(Taken(parked_id, "celery", parked.taken.raw), parked.reason, AT)
    assert again.id == parked_id, "what is parked again is in its place"


def test_a_message_that_looks_like_one_of_ours_is_what_it_was() -> None:
    """A list of the parked messages raised a TypeError."""
    strange = Parked(Taken("9", "celery", {"bytes": 5}), "it is none", AT)
    assert Parked.decode("x", strange.encode()).taken.raw == {"bytes": 5}


def test_what_json_has_no_type_for_is_kept_as_it_looks() -> None:
    """AMQP's headers may have times."""
    parked = Parked(Taken("9", "celery", {"headers": {"at": datetime(2026, 1, 2)}}), "JSON cannot carry it", AT)
    assert Parked.decode("x", parked.encode()).taken.raw == {"headers": {"at": "2026-01-02 00:00:00"}}

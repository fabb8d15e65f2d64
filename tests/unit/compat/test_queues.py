"""Queues as Celery's callers write them: ours, kombu's, or names."""

from __future__ import annotations

from typing import Any

import kombu
import pytest

from dream.compat import queues
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.queues import name_of, taking


@pytest.fixture(params=[queues, kombu], ids=["ours", "kombu's"])
def written(request: pytest.FixtureRequest) -> Any:
    """A module that has `Queue` and `Exchange`."""
    return request.param


def test_a_queue_takes_what_is_sent_to_its_name_or_its_key(written: Any) -> None:
    media = written.Queue(
        "media", written.Exchange("media"), routing_key="video", queue_arguments={"x-max-priority": 9}
    )
    plain = written.Queue("plain")
    assert [name_of(each) for each in (media, plain, "named")] == ["media", "plain", "named"]
    assert taking([media, plain, "named"], "video") == "media"
    assert taking([media, plain, "named"], "named") == "named"
    assert taking(None, "video") == "video"


def test_an_exchange_that_spreads_tasks_by_patterns_is_refused(written: Any) -> None:
    topic = written.Queue("media", written.Exchange("media", type="topic"), routing_key="media.#")
    with pytest.raises(ImproperlyConfigured, match="'media' has a topic exchange: name its tasks in task_routes"):
        name_of(topic)


@pytest.mark.parametrize("queue", [None, 3, "", {"name": "a"}])
def test_what_has_no_name_is_no_queue(queue: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="neither a name nor a queue"):
        name_of(queue)

"""Keys of a finished task in Redis, whose memory is the broker's: few, and short-lived beside its result."""

from __future__ import annotations

from typing import Any

import pytest

from dream.messages.events import ImageUpdate, UpdateStatus
from dream.notifications import Publisher
from dream.notifications.publish import events_key, old_end_key, old_once_key, published_key
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts

#: As docs/settings.md says (352 and 176), and room for longer names of hosts and of prefixes.
MOST_BYTES = {"result": 460, "told": 220}


@pytest.mark.slow
def test_a_finished_upload_leaves_its_result_and_one_short_lived_key(parts: Parts, system: System, jpeg: bytes) -> None:
    """For any number of pictures; the stream is its dream's, and the same for all its uploads."""
    parts.start("worker")
    before = set(system.redis.scan_iter("*"))
    for dream_id, count in ((7, 1), (8, 5)):
        files: Any = [{"name": f"{number}.jpg", "data": jpeg} for number in range(count)]
        task_id = system.producer.upload_images(dream_id, files)
        system.await_end(task_id)
        prefix = system.settings.redis_prefix
        result, told = f"celery-task-meta-{task_id}", published_key(prefix, task_id)
        stream = events_key(prefix, dream_id)
        expected = {each.encode() for each in (result, told, stream)}
        of_task = {key for key in set(system.redis.scan_iter("*")) - before if task_id.encode() in key}
        assert of_task == expected - {stream.encode()}
        sizes = {name: int(system.redis.memory_usage(key) or 0) for name, key in (("result", result), ("told", told))}
        assert sizes["told"] <= MOST_BYTES["told"]
        assert count > 1 or sizes["result"] <= MOST_BYTES["result"]
        assert 0 < int(system.redis.ttl(told)) <= 3600
        assert 3600 < int(system.redis.ttl(result)) <= 86400
        statuses = [event["status"] for event in system.events(dream_id)]
        assert statuses[-1] == "completed"
        # The beginning, each picture, and at most once a second that pictures are in work.
        assert set(statuses[:-1]) == {"processing"}
        assert count + 1 <= len(statuses[:-1]) <= count + 6


def test_what_an_older_release_has_told_is_not_told_again(system: System) -> None:
    """Its keys are read: for each event one, and one for a task's end."""
    publisher, prefix = Publisher(system.settings), system.settings.redis_prefix
    system.redis.set(old_once_key(prefix, 7, "a:0:started"), "1-0", ex=60)
    system.redis.set(old_end_key(prefix, 7, "b"), "2-0", ex=60)

    def tell(task_id: str, once: str) -> None:
        processing = ImageUpdate(dream_id=7, status=UpdateStatus.PROCESSING, task_id=task_id)
        assert publisher.publish(processing, once=f"{task_id}:{once}")

    tell("a", "0:started")
    tell("b", "1:started")
    assert system.events(7) == []
    tell("a", "0:image:1")
    wait_for(lambda: len(system.events(7)) == 1, what="the event that is new")
    publisher.close()

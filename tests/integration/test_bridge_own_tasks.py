"""Tasks of dream's own that Celery's producers have sent: rows by way of the producer, many at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from dream.bridge import Moved, Source, open_source
from dream.bridge.parked import replayed
from dream.errors import DatabaseUnavailable, InvalidArguments
from dream.messages.registry import DELETE_IMAGES
from dream.producer import Order, Producer, default
from dream.settings import Settings
from tests.old_system import CLEAN_UP, Old, rows, waiting


@contextmanager
def opened(old: Old) -> Iterator[Source]:
    source = open_source(old.settings, old.url, [old.queue])
    source.begin()
    yield source
    source.close()


def deletions(made: list[dict[str, Any]], ids: list[int]) -> list[dict[str, Any]]:
    """Deletions of pictures of those ids."""
    (sample,) = [message for message in made if message["headers"]["task"] == CLEAN_UP]
    messages = []
    for number, image_id in enumerate(ids):
        body = json.dumps([[7, [{"id": image_id}], "owner"], {}, {}]).encode()
        headers = {**sample["headers"], "task": DELETE_IMAGES, "id": f"deletion-{number}"}
        messages.append({**sample, "headers": headers, "body": base64.b64encode(body).decode()})
    return messages


def test_tasks_of_ours_cross_in_one_transaction(old_redis: Old, settings: Settings, made: list[dict[str, Any]]) -> None:
    """A commit waits for the disk: with one for each task a backlog would take its time."""
    commits: list[object] = []
    old_redis.put(deletions(made, list(range(1, 101))))
    event.listen(default().database.engine, "commit", commits.append)
    assert old_redis.move() == Moved(handed_over=100)
    assert rows() == len(waiting(settings, "dream_image_processing")) == 100
    assert len(commits) < 5


class Picky(Producer):
    """Its database cannot hold one of the tasks, which is seen when all of them are written."""

    def accept_all(self, orders: Sequence[Order]) -> list[bool]:
        if any(order.task_id == "deletion-1" for order in orders):
            raise InvalidArguments("the database cannot hold it")
        return super().accept_all(orders)


@pytest.mark.parametrize(("kind", "image_id"), [(Producer, 2**70), (Picky, 2)], ids=["by its arguments", "by its row"])
def test_a_task_that_is_refused_is_parked_and_harms_no_other(
    old_redis: Old, settings: Settings, made: list[dict[str, Any]], kind: type[Producer], image_id: int
) -> None:
    old_redis.put(deletions(made, [1, image_id, 3]))
    moved = Moved()
    with opened(old_redis) as source, old_redis.handover(producer=kind(settings)) as (handover, place):
        handover.move(source, source.take(10), moved)
        [parked] = place.all()
    assert moved == Moved(handed_over=2, parked=1)
    assert (parked.task, "not accepted" in parked.reason) == (DELETE_IMAGES, True)
    assert rows() == 2


def test_a_task_that_is_refused_again_when_it_is_replayed_stays_parked(
    old_redis: Old, made: list[dict[str, Any]]
) -> None:
    """It was parked where it was, and then taken away from there."""
    old_redis.put(deletions(made, [2**70]))
    assert old_redis.move() == Moved(parked=1)
    with old_redis.handover() as (handover, place):
        assert replayed(place, handover, None) == Moved(parked=1)
    assert "not accepted" in old_redis.parked()[DELETE_IMAGES]


def test_what_was_moved_before_a_server_was_away_is_counted_and_the_rest_stays(
    old_redis: Old, settings: Settings, made: list[dict[str, Any]]
) -> None:
    old_redis.put(made)
    away = Producer(settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/nowhere"}))
    moved = Moved()
    with opened(old_redis) as source, old_redis.handover(producer=away) as (handover, _):
        messages = source.take(10)
        with pytest.raises(DatabaseUnavailable):
            handover.move(source, messages, moved)
    assert moved == Moved(handed_over=3, parked=1)
    assert old_redis.move() == Moved(handed_over=1)

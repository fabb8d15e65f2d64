"""The bridge: what the real Celery has put into a real broker is run once, and nothing is lost on the way."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pika
import pytest
import redis

from dream.bridge import Moved, open_source
from dream.bridge.parked import replayed
from dream.bridge.sources import MOST_BYTES
from dream.db import DreamImage
from dream.settings import Settings
from tests.commands import dream
from tests.old_system import CLEAN_UP, UPLOAD, Old, celery, old_system, rows, waiting
from tests.pictures import noise
from tests.processes import WORKER, Parts
from tests.valkey import Valkey

STEPS = ("bridge_take", "bridge_hand_over", "bridge_accept", "bridge_park", "bridge_remove")
APP = """
from dream.compat import Celery
app = Celery("shop")

@app.task(name="shop.add")
def add(x, y):
    return x + y
"""


def encoded() -> dict[str, str]:
    return {"name": "a.jpg", "data": base64.b64encode(noise()).decode()}


def test_everything_is_moved_once_and_nothing_is_thrown_away(old: Old, settings: Settings) -> None:
    """From the same Redis, another one, and RabbitMQ: an app's tasks, ours under old names with base64 pictures inside,
    and what nobody knows; `eta`, `expires`, priority, id, retries, limits and headers stay.
    """
    old.send(
        f"""
for number in range(20):
    send("shop.add", [number, 1], task_id=f"add-{{number}}")
send("shop.add", [0, 1], task_id="add-0")
send({UPLOAD!r}, [7, [{encoded()!r}]], {{"positions": [3]}}, task_id="upload")
send({CLEAN_UP!r}, task_id="clean-up")
send("nobody.knows", [1], task_id="unknown")
send("shop.add", [1, 2], task_id="late", countdown=600, expires=900, priority=6, retries=2, time_limit=9,
     headers={{"trace": "x"}})
"""
    )
    assert old.move() == Moved(handed_over=23, duplicates=1, parked=1)
    assert [each["message_id"] for each in waiting(settings)][:20] == [f"add-{number}" for number in range(20)]
    assert (rows(), rows(DreamImage)) == (2, 1)
    assert list(old.parked()) == ["nobody.knows"]
    [late] = waiting(settings, "default.DQ")
    said = late["options"]["celery"]
    assert (late["message_id"], late["options"]["delivery_id"]) == ("late", "late:2")
    assert (said["priority"], said["retries"], said["timelimit"]) == (6, 2, [9, None])
    assert said["headers"] == {"trace": "x"}
    assert said["eta"] < said["expires"]
    assert old.move() == Moved()


#: Every step in one Redis; elsewhere those that are two there.
KILLS = [("same-redis", f"{step}:{when}") for step in STEPS for when in ("before", "after")] + [
    (kind, point)
    for kind in ("other-redis", "rabbitmq")
    for point in ("bridge_take:after", "bridge_hand_over:after", "bridge_remove:before")
]


@pytest.mark.parametrize(("old", "point"), KILLS, indirect=["old"], ids=" ".join)
def test_a_bridge_that_is_killed_anywhere_loses_and_doubles_nothing(
    old: Old, settings: Settings, made: list[dict[str, Any]], point: str
) -> None:
    old.put(made)
    assert old.move_and_die(f"{point}=kill") == -9
    old.move()
    assert sorted(each["message_id"] for each in waiting(settings) if each["actor_name"] == "shop.add") == [
        f"add-{number}" for number in range(3)
    ]
    assert rows() == 1
    assert list(old.parked()) == ["nobody.knows"]
    assert old.move() == Moved()


def test_what_is_not_understood_is_parked_with_its_reason_and_can_be_replayed(
    old_redis: Old, settings: Settings
) -> None:
    """Protocol 1, other content types, chains, bytes that are no message; and a name that is known later."""
    old = old_redis
    old.send(
        """
from celery import chain
@app.task(name="shop.add")
def add(x, y):
    return x + y

send("shop.add", [1, 2], task_id="pickled", serializer="pickle")
chain(add.s(1, 2), add.s(1)).apply_async()
send("shop.later", [1], task_id="later")
older = Celery(broker=app.conf.broker_url)
older.conf.update(task_protocol=1, task_default_queue=app.conf.task_default_queue)
older.send_task("shop.add", [1, 2], task_id="old")
"""
    )
    with redis.Redis.from_url(old.url) as client:
        client.lpush(old.queue, b"\xff\x00 no message")
    assert old.move() == Moved(parked=5)
    with old.handover("shop.later") as (handover, place):
        reasons = " ".join(each.reason for each in place.all())
        for reason in ("content type", "part of a chain", "protocol 1", "not a message of kombu's", "no worker knows"):
            assert reason in reasons
        assert replayed(place, handover, None) == Moved(handed_over=1, parked=4)
        assert len(list(place.all())) == 4
    assert [each["message_id"] for each in waiting(settings)] == ["later"]


#: Where a message that is whole has something else; none of these is written by Celery.
MALFORMED: list[dict[str, Any]] = [
    {"headers": "task"},
    {"headers": ["task"]},
    {"properties": 5},
    *[
        {"headers": {"task": "shop.add", "id": "a", **wrong}}
        for wrong in (
            {"id": "\ud800"},
            {"id": "\x00"},
            {"retries": float("inf")},
            {"timelimit": ["a", None]},
            {"timelimit": 5},
            {"eta": 5},
        )
    ],
    {"body": "[" * 100_000, "properties": {}},
    {"body": json.dumps([[], {}, {"callbacks": "shop.add"}]), "properties": {}},
]


def test_a_malformed_message_is_parked_and_stops_nothing(
    old_redis: Old, settings: Settings, made: list[dict[str, Any]]
) -> None:
    """It ended the bridge, and the next one, which found it in flight. Nor does a key that is no list."""
    with redis.Redis.from_url(old_redis.url) as client:
        client.lpush(old_redis.queue, "[" * 100_000)
        client.set(f"{old_redis.queue}\x06\x163", "no list")
    old_redis.put([made[0] | wrong for wrong in MALFORMED] + [made[1]])
    assert old_redis.move() == Moved(handed_over=1, parked=len(MALFORMED) + 1)
    assert old_redis.parked().keys() == {"-", "shop.add"}
    assert [each["message_id"] for each in waiting(settings)] == ["add-1"]


def test_a_header_that_json_cannot_carry_is_parked(
    local_rabbitmq_url: str, settings: Settings, as_environment: None, made: list[dict[str, Any]]
) -> None:
    """AMQP's headers have times and bytes."""
    with old_system(settings, local_rabbitmq_url) as old:
        old.put([made[0] | {"headers": made[0]["headers"] | {"at": datetime(2026, 1, 2)}}, made[1]])
        with pika.BlockingConnection(pika.URLParameters(old.url)) as connection:
            connection.channel().exchange_declare(old.queue)
        assert old.move() == Moved(handed_over=1, parked=1)


def test_golden_what_is_in_flight(old_redis: Old, settings: Settings, made: list[dict[str, Any]]) -> None:
    """The next bridge, perhaps of a later release, hands it over."""
    old_redis.put(made[:1])
    with redis.Redis.from_url(old_redis.url) as client:
        client.hset("unacked", "a", json.dumps([made[1], "", old_redis.queue]))
        source = open_source(settings, old_redis.url, [old_redis.queue], take_unacked=True)
        source.begin()
        assert [len(source.take(1)), len(source.take(1))] == [1, 1]
        source.close()
        assert client.hgetall(f"{settings.redis_prefix}:bridge:in_flight") == {
            b"1": f"{old_redis.queue}\n{json.dumps(made[0])}".encode(),
            b"2": b"\n" + json.dumps([made[1], "", old_redis.queue]).encode(),
        }
    assert old_redis.move() == Moved(handed_over=2)


def test_an_old_redis_is_read(
    settings: Settings, as_environment: None, made: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Redis 5 knows no HELLO, with which a newer protocol begins."""
    server = Valkey(tmp_path, "--rename-command", "HELLO", "")
    server.start()
    try:
        with old_system(settings, server.url) as old:
            old.put(made)
            assert old.move() == Moved(handed_over=4, parked=1)
    finally:
        server.kill()


def test_what_a_worker_of_celerys_held_is_taken_when_it_is_gone(
    old_redis: Old, settings: Settings, made: list[dict[str, Any]]
) -> None:
    """After the operator's word, or after the visibility time-out; and the urgent goes before the others."""
    old = old_redis
    now, hour_ago, urgent = made[:3]
    with redis.Redis.from_url(old.url) as client:
        client.lpush(f"{old.queue}\x06\x163", json.dumps(made[3]))
        client.lpush(old.queue, json.dumps(urgent))
        for tag, message, at in (("a", now, 9999999999), ("b", hour_ago, 1)):
            client.hset("unacked", tag, json.dumps([message, "", old.queue]))
            client.zadd("unacked_index", {tag: at})
    assert old.move() == Moved(handed_over=3)
    assert [each["message_id"] for each in waiting(settings)] == ["add-2", "clean-up", "add-1"]
    assert old.move(take_unacked=True) == Moved(handed_over=1)
    with redis.Redis.from_url(old.url) as client:
        assert client.exists("unacked", "unacked_index") == 0


def test_a_rabbitmq_whose_queues_are_ours_is_refused(environment: dict[str, str], local_rabbitmq_url: str) -> None:
    changes = {"DREAM_BROKER_URL": local_rabbitmq_url}
    said = dream(environment, "bridge", "--from", local_rabbitmq_url, "--check", **changes)
    assert (said.returncode, "DREAM_QUEUE_PREFIX" in said.stderr, len(said.stderr.splitlines())) == (2, True, 1)


@pytest.mark.slow
def test_messages_with_pictures_are_taken_by_their_size(old: Old, made: list[dict[str, Any]]) -> None:
    """Taken messages are in memory: two hundred uploads of several megabytes would not fit."""
    large = base64.b64encode(b" " * (MOST_BYTES // 2)).decode()
    old.put([{**made[0], "body": large}] * 5)
    source = open_source(old.settings, old.url, [old.queue])
    source.begin()
    assert 2 <= len(source.take(200)) <= 3
    source.close()


def test_a_thousand_messages_move_in_seconds(old_redis: Old, settings: Settings, made: list[dict[str, Any]]) -> None:
    many = [{**made[0], "headers": {**made[0]["headers"], "id": f"{number}"}} for number in range(1000)]
    old_redis.put(many)
    begun = time.monotonic()
    assert old_redis.move() == Moved(handed_over=1000)
    assert time.monotonic() - begun < 5
    assert len(waiting(settings)) == 1000


@pytest.mark.parametrize("old", ["same-redis", "rabbitmq"], indirect=True)
@pytest.mark.slow
def test_the_real_async_result_returns_what_our_worker_did(
    old: Old, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Producers stay as they are: they send, `dream bridge` moves, our worker runs, `AsyncResult.get()` returns."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "shop.py").write_text(APP)
    variables = {**environment, "PYTHONPATH": str(folder)}
    parts = Parts(variables, folder)
    common = ("bridge", "--from", old.url, "--queues", old.queue, "--app", "shop:app")
    program = f"""
app.conf.task_default_queue = {old.queue!r}
[url] = send({UPLOAD!r}, [7, [{encoded()!r}], [0]]).get(timeout=40)
print(url.startswith("http"), send("shop.add", [2, 3]).get(timeout=40))
bad = send({UPLOAD!r}, [7, [{{"name": "bad.jpg", "data": "bm8gcGljdHVyZQ=="}}], [0]])
print(type(bad.get(timeout=40, propagate=False)).__name__, bad.state)
"""
    try:
        bridge = parts.start(*common, ready=False)
        parts.start("-A", "shop", "worker", "-Q", "default,dream_image_processing", program=[str(WORKER)], cwd=folder)
        assert celery(old.url, program, settings.events_url) == "True 5\nImageRejected FAILURE\n"
        assert parts.stop(bridge) == 0
        assert parts.log_of(bridge).splitlines()[-1].startswith("handed over 3, duplicates 0, parked 0;")
    finally:
        parts.end()
    old.send('send("shop.add", [2, 3])\nsend("nobody.knows")')
    counted = dream(variables, *common, "--check").stdout
    assert f"{old.queue}\tshop.add\t1\tmoved\n" in counted
    assert f"{old.queue}\tnobody.knows\t1\tparked: no worker knows" in counted

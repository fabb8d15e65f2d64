"""The bridge and what producers of the real Celery send, as they are configured in use."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
import redis

from dream.bridge import Bridge, Moved, open_source
from dream.messages.registry import DELETE_IMAGES
from dream.settings import Settings
from tests.conftest import wait_for
from tests.network import Proxy
from tests.old_system import Old, celery, old_system, waiting

pytestmark = pytest.mark.slow

_TASKS = """
from celery import chain, chord, group, signature
@app.task(name="shop.add")
def add(x, y): ...
"""
#: What is parked, as a program sends it, with the reason.
PARKED = {
    'app.conf.result_backend = app.conf.broker_url\nchord([add.s(1, 2).set(task_id="x")])(add.s(1))': "part of a chord",
    'add.apply_async((1, 2), task_id="x", link=chain(add.s(1), add.s(2)))': "its link is a chain",
    'add.apply_async((1, 2), task_id="x", link_error=group(add.s(1), add.s(2)))': "its link is a group",
    'add.apply_async((1, 2), task_id="x", link=add.s(1).set(link=chain(add.s(2), add.s(3))))': "its link is a chain",
    'add.apply_async((1, 2), task_id="x", link=signature("nobody.knows"))': "no worker knows its link 'nobody.knows'",
    'add.starmap([(1, 2)]).apply_async(task_id="x")': "a work flow or a task of Celery's own",
    'send("shop.add", [1, 2], task_id="x", serializer="pickle")': "application/x-python-serialize",
    f'send({DELETE_IMAGES!r}, [1, [], "bob"], task_id="x", link=add.s(1))': "calls no next one",
}


@pytest.mark.parametrize(("program", "reason"), PARKED.items(), ids=list(PARKED.values()))
def test_what_would_run_by_half_is_parked_whole(old_redis: Old, program: str, reason: str) -> None:
    old_redis.send(_TASKS + program)
    assert old_redis.move() == Moved(parked=1)
    assert reason in old_redis.reasons()["x"]


def test_links_to_known_tasks_groups_and_stamps_are_moved(old_redis: Old, settings: Settings) -> None:
    """Tasks of a group stand alone; a stamp says something of a task that no worker needs."""
    old_redis.send(
        _TASKS
        + """
add.apply_async((1, 2), task_id="linked", link=[add.s(1).set(link=add.s(2))], link_error=add.si(3, 4))
group(add.s(1, 2).set(task_id="first"), add.s(3, 4).set(task_id="second")).apply_async()
add.s(1, 2).set(task_id="stamped").apply_async(stamped_headers=["a"], a="b")
"""
    )
    assert old_redis.move() == Moved(handed_over=4)
    said = {each["message_id"]: each["options"]["celery"] for each in waiting(settings)}
    assert [each["task"] for each in said["linked"]["link"]] == ["shop.add"]
    assert said["first"]["group"] == said["second"]["group"]
    assert "stamps" not in said["stamped"].get("headers", {})


def test_compressed_bodies_are_read_where_python_can(old: Old, settings: Settings) -> None:
    kinds = ("gzip", "zlib", "bzip2", "lzma")
    old.send(
        "".join(
            f'send("shop.add", [1, 2], {{"z": "z" * 9999}}, task_id="{kind}", compression="{kind}")\n' for kind in kinds
        )
    )
    assert old.move() == Moved(handed_over=4)
    assert {each["message_id"]: each["kwargs"]["z"] for each in waiting(settings)} == dict.fromkeys(kinds, "z" * 9999)


def test_a_compression_that_is_not_known_or_not_true_is_parked(old_redis: Old) -> None:
    old_redis.send('for each in "abc":\n    send("shop.add", [1, 2], task_id=each, compression="bzip2")')
    with redis.Redis.from_url(old_redis.url) as client:
        messages = [json.loads(each) for each in client.lrange(old_redis.queue, 0, -1)]  # type: ignore[union-attr]
        client.delete(old_redis.queue)
    for message, kind in zip(messages, ("application/zstd", "application/x-lzma", ["application/x-bz2"]), strict=True):
        message["headers"]["compression"] = kind
    old_redis.put(messages)
    assert old_redis.move() == Moved(parked=3)
    c, b, a = (old_redis.reasons()[each] for each in "cba")
    assert "only gzip, bzip2 and lzma are read" in c
    assert "not what it is compressed as" in b
    assert "only gzip, bzip2 and lzma are read" in a


def test_a_message_of_many_megabytes_is_moved(old: Old, settings: Settings) -> None:
    old.send('send("shop.add", ["x" * 12_000_000, 1], task_id="large")')
    assert old.move() == Moved(handed_over=1)
    [message] = waiting(settings)
    assert len(message["args"][0]) == 12_000_000


def test_queues_with_any_name_are_found_also_those_that_come_later(old_redis: Old, settings: Settings) -> None:
    """The bindings in that Redis are read; a prefix and a separator of the senders' own are an option each."""
    name = f"{old_redis.queue}: a/b*?[ü]"
    options = '{"global_keyprefix": "their[own]:", "sep": "::", "priority_steps": [0, 4, 8]}'
    source = open_source(settings, old_redis.url, key_prefix="their[own]:", separator="::")
    stop = threading.Event()
    with old_redis.handover() as (handover, _), ThreadPoolExecutor(1) as pool:
        bridge = Bridge(source, handover)
        try:
            running = pool.submit(bridge.run, stop.wait, drain=False)
            celery(
                old_redis.url,
                f"""
app.conf.broker_transport_options = {options}
for priority in (9, 5, 0):
    send("shop.add", [1, priority], task_id=f"p{{priority}}", queue={name!r}, priority=priority)
""",
            )
            wait_for(lambda: bridge.moved.total == 3 or running.done(), what="three tasks")
        finally:
            stop.set()
        assert running.result() == Moved(handed_over=3)
    source.close()
    with redis.Redis.from_url(old_redis.url) as client:
        for key in client.scan_iter("their\\[own\\]:*"):
            client.delete(key)


def test_of_what_workers_held_only_the_named_queues_is_taken(old_redis: Old, made: list[dict[str, object]]) -> None:
    """Its queue is that which its exchange and routing key are bound to."""
    sep = "\x06\x16"
    with redis.Redis.from_url(old_redis.url) as client:
        client.sadd(f"_kombu.binding.{old_redis.queue}-orders", f"new{sep}{sep}{old_redis.queue}")
        client.hset("unacked", "ours", json.dumps([made[0], f"{old_redis.queue}-orders", "new"]))
        client.hset("unacked", "theirs", json.dumps([made[1], "", "another"]))
        client.zadd("unacked_index", {"ours": 1, "theirs": 1})
        assert old_redis.move() == Moved(handed_over=1)
        assert client.hkeys("unacked") == [b"theirs"]
        client.delete("unacked", "unacked_index")


def test_two_bridges_at_a_time_move_everything_once(old: Old, settings: Settings) -> None:
    old.send(
        f"""
for number in range(600):
    send("shop.add", [number, 1], task_id=f"add-{{number}}")
    if number % 10 == 0:
        send({DELETE_IMAGES!r}, [1, [], "bob"], task_id=f"own-{{number}}")
"""
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = (each.result() for each in [pool.submit(old.move) for _ in range(2)])
    assert first.handed_over + second.handed_over == 660
    assert sorted(each["message_id"] for each in waiting(settings)) == sorted(f"add-{each}" for each in range(600))
    assert len(waiting(settings, "dream_image_processing")) == 60
    assert old.move() == Moved()


def test_a_source_that_is_cut_off_is_waited_for_and_nothing_is_lost_or_doubled(
    old: Old, settings: Settings, made: list[dict[str, Any]]
) -> None:
    """After each step."""
    count = 2000
    old.put([made[0] | {"headers": made[0]["headers"] | {"id": f"{number}"}} for number in range(count)])
    parts = urlsplit(old.url)
    network = Proxy((parts.hostname or "", parts.port or 6379))
    netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{network.port}".removeprefix("@")
    source = open_source(settings, parts._replace(netloc=netloc).geturl(), [old.queue])
    cuts: list[int] = []

    def cut(moved: Moved) -> None:
        cuts.append(moved.total)
        network.cut()
        network.restore()

    with old.handover() as (handover, _):
        bridge = Bridge(source, handover)
        moved = bridge.run(threading.Event().wait, drain=True, report=cut, report_every_s=0)
    assert (moved.handed_over, len(cuts) >= count // 200) == (count, True)
    source.close()
    network.close()
    assert sorted(int(each["message_id"]) for each in waiting(settings)) == list(range(count))
    assert old.move() == Moved()


@pytest.mark.parametrize("kind", [{"x-queue-type": "quorum"}, {"x-max-priority": 10}], ids=["quorum", "priority"])
def test_other_kinds_of_rabbitmq_queues_are_read(
    local_rabbitmq_url: str,
    settings: Settings,
    as_environment: None,
    made: list[dict[str, object]],
    kind: dict[str, object],
) -> None:
    with old_system(settings, local_rabbitmq_url) as old:
        with pika.BlockingConnection(pika.URLParameters(local_rabbitmq_url)) as connection:
            connection.channel().queue_declare(old.queue, durable=True, arguments=kind)
        old.send(
            f"""
from kombu import Queue
app.conf.task_queues = [Queue({old.queue!r}, queue_arguments={kind!r})]
for number in range(3):
    send("shop.add", [number, 1], task_id=f"add-{{number}}")
"""
        )
        assert old.move() == Moved(handed_over=3)

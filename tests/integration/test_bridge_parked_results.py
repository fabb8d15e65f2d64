"""Results of parked tasks: the real Celery's `get()` and dream's own report that the bridge has parked the task."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from dream.bridge import Moved
from dream.bridge.parked import replayed
from dream.compat import AsyncResult
from dream.compat.exceptions import TaskParked, TaskRevokedError
from dream.compat.worker.unwanted import revoke
from dream.messages.registry import DELETE_IMAGES
from dream.settings import Settings
from dream.work.connection import default
from dream.work.results import meta_of
from tests.commands import dream
from tests.old_system import Old, celery, waiting

_TASKS = """
from celery import chain, chord, group
@app.task(name="shop.add")
def add(x, y): ...
def say(*results):
    print(*[each.id for each in results])
"""
#: What is parked, as a program sends it, which prints those that it would wait for; and the reason.
PARKED = {
    'say(send("shop.add", [1, 2], serializer="pickle"))': "content type",
    'say(send("nobody.knows"))': "no worker knows a task 'nobody.knows'",
    f'say(send({DELETE_IMAGES!r}, [1, "none", "bob"]))': "it was not accepted",
    "c = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()\nsay(c.parent.parent, c.parent, c)": "a chain",
    "body = chord([add.s(1, 2), add.s(3, 4)])(add.s(5))\nsay(*body.parent, body)": "a chord",
    "last = chain(add.s(1, 2), group(add.s(3), add.s(4)), add.s(5)).apply_async()\n"
    "say(last.parent.parent, *last.parent, last)": "a chain",
    "say(*group(add.s(1, 2), add.s(3, 4).set(serializer='pickle')).apply_async()[1:])": "content type",
    "app.conf.task_protocol = 1\nsay(send('shop.add', [1, 2]))": "protocol 1",
    "app.conf.task_protocol = 1\nsay(send('shop.add', [1, 2], serializer='pickle'))": "protocol 1",
    "say(add.starmap([(1, 2)]).apply_async())": "a task of Celery's own",
}


def told(old: Old, ids: list[str]) -> list[list[Any]]:
    """The answers of the real Celery's `get` about tasks."""
    program = f"""
import json
for each in {ids!r}:
    try:
        print(json.dumps(["returned", app.AsyncResult(each).get(timeout=20)]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
    said = celery(old.url, program, backend=old.settings.events_url)
    return [json.loads(line) for line in said.splitlines()]


def sent(old: Old, program: str) -> list[str]:
    """The ids that it says."""
    configured = f"app.conf.update(task_default_queue={old.queue!r}, result_backend={old.settings.events_url!r})\n"
    return celery(old.url, configured + _TASKS + program, backend=old.settings.events_url).split()


@pytest.mark.slow
@pytest.mark.parametrize(("program", "reason"), PARKED.items(), ids=range(len(PARKED)))
def test_celerys_get_says_why_a_task_was_parked(old_redis: Old, program: str, reason: str) -> None:
    """Also of the later parts of a chain, of its groups, and of a chord's body: none of them will ever be sent."""
    ids = sent(old_redis, program)
    assert old_redis.move().parked >= 1
    with old_redis.handover() as (_, place):
        [parked_id, *_] = [each.id for each in place.all()]
    for kind, said in told(old_redis, ids):
        assert kind == "TaskParked"
        assert reason in said
        assert "`dream bridge replay " in said
        assert parked_id in said or len(ids) > 1
    with pytest.raises(TaskParked, match="not handed over by the bridge"):
        AsyncResult(ids[0]).get(timeout=20)


def test_from_rabbitmq_too(old: Old) -> None:
    ids = sent(old, 'say(send("shop.add", [1, 2], serializer="pickle"), send("nobody.knows"))')
    old.move()
    assert [kind for kind, _ in told(old, ids)] == ["TaskParked"] * 2


def test_a_replayed_task_has_no_result_until_it_has_one(old_redis: Old, settings: Settings) -> None:
    """A task that still cannot be run says why now."""
    ids = sent(old_redis, 'say(send("shop.later", [1]), send("nobody.knows"), send("shop.add", serializer="pickle"))')
    old_redis.move()
    with old_redis.handover("shop.later") as (handover, place):
        assert replayed(place, handover, None) == Moved(handed_over=1, parked=2)
    assert [AsyncResult(each).state for each in ids] == ["PENDING", "FAILURE", "FAILURE"]
    assert [each["message_id"] for each in waiting(settings)] == ids[:1]
    default().results.put(meta_of(ids[0], "SUCCESS", 3))
    assert told(old_redis, ids[:1]) == [["returned", 3]]


def test_who_waits_already_is_told_at_once(old_redis: Old) -> None:
    program = f"""
from celery import Celery
app = Celery(broker={old_redis.url!r}, backend={old_redis.settings.events_url!r})
result = app.send_task("nobody.knows", queue={old_redis.queue!r})
print("sent", flush=True)
try:
    result.get(timeout=60)
except Exception as error:
    print(type(error).__name__)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as waiting_one:
        assert waiting_one.stdout is not None
        assert waiting_one.stdout.readline() == "sent\n"
        begun = time.monotonic()
        assert old_redis.move() == Moved(parked=1)
        assert waiting_one.communicate(timeout=60)[0] == "TaskParked\n"
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("point", ["bridge_park:before", "bridge_park:after", "bridge_remove:before"])
def test_a_bridge_that_is_killed_while_it_parks_leaves_nobody_waiting(old_redis: Old, point: str) -> None:
    ids = sent(old_redis, 'say(send("nobody.knows"))')
    assert old_redis.move_and_die(f"{point}=kill") == -9
    old_redis.move()
    assert AsyncResult(ids[0]).state == "FAILURE"


def test_an_end_that_is_kept_stays(old_redis: Old) -> None:
    """A message that comes once more is of a task that has ended."""
    program = 'say(*[send("nobody.knows") for _ in range(4)])'
    ids = sent(old_redis, program)
    states = ("SUCCESS", "FAILURE", "REVOKED", "STARTED")
    error = {"exc_type": "KeyError", "exc_message": ["its own"], "exc_module": "builtins"}
    for task_id, state in zip(ids, states, strict=True):
        default().results.put(meta_of(task_id, state, 3 if state == "SUCCESS" else error))
    old_redis.move()
    assert [AsyncResult(each).state for each in ids] == ["SUCCESS", "FAILURE", "REVOKED", "FAILURE"]
    assert str(AsyncResult(ids[1]).result) == "'its own'"


def test_a_task_without_a_result_gets_none_and_a_revoked_one_is_revoked(old_redis: Old, settings: Settings) -> None:
    ids = sent(old_redis, 'say(send("nobody.knows", ignore_result=True), send("nobody.knows"), send("nobody.knows"))')
    revoke(settings, [ids[1]])
    old_redis.move()
    assert [AsyncResult(each).state for each in ids] == ["PENDING", "REVOKED", "FAILURE"]
    with pytest.raises(TaskRevokedError):
        AsyncResult(ids[1]).get(timeout=20)


def test_the_bridge_can_be_told_to_leave_them_pending(
    old_redis: Old, environment: dict[str, str], tmp_path: Path
) -> None:
    """And its app's own addresses count where the environment names none, as for its workers."""
    (tmp_path / "shop.py").write_text(
        "from dream.compat import Celery\n"
        f"app = Celery('shop', broker={environment.pop('DREAM_BROKER_URL')!r})\n"
        "app.task(name='shop.add')(lambda x, y: x + y)\n"
    )
    variables = {name: value for name, value in environment.items() if name != "DREAM_REDIS_URL"}
    variables |= {"PYTHONPATH": str(tmp_path), "DREAM_APP": "shop"}
    ids = sent(old_redis, 'say(send("nobody.knows"), send("shop.add", [1, 2]))')
    common = ("bridge", "--from", old_redis.url, "--queues", old_redis.queue, "--drain")
    moved = dream(variables, *common, "--leave-pending")
    assert moved.stdout.startswith("handed over 1, duplicates 0, parked 1; in "), moved.stderr
    assert AsyncResult(ids[0]).state == "PENDING"
    assert dream(variables, "bridge", "replay", "--all", "--leave-pending").returncode == 0
    assert AsyncResult(ids[0]).state == "PENDING"
    assert "still parked 1" in dream(variables, "bridge", "replay", "--all").stdout
    assert AsyncResult(ids[0]).state == "FAILURE"
    assert "nobody.knows" in dream(variables, "bridge", "parked").stdout


def test_a_message_that_is_none_or_has_no_id_is_parked_all_the_same(old_redis: Old, made: list[dict[str, Any]]) -> None:
    odd = [made[0] | {"headers": {"task": "nobody.knows", "id": each}} for each in (None, 5, "", "\ud800", ["a"])]
    odd = [each | {"properties": {"correlation_id": 7}} for each in odd]
    old_redis.put([*odd, made[0] | {"headers": 5, "properties": [], "body": None}])
    with redis.Redis.from_url(old_redis.url) as client:
        client.lpush(old_redis.queue, b"\xff\x00 no message")
    assert old_redis.move() == Moved(parked=7)

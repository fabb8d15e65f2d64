"""`revoke` of the real Celery's producers reaches our workers by way of the bridge."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
import redis
from redis.exceptions import NoPermissionError

from dream.bridge import Bridge, Moved, open_source
from dream.bridge.revocations import EXCHANGE, Revocation, merged, revocation_in
from dream.db import DreamTask
from dream.producer import default
from dream.settings import Settings
from tests.conftest import wait_for
from tests.old_system import CLEAN_UP, Old, celery
from tests.processes import WORKER, Parts

APP = """
import time
from dream.compat import Celery
app = Celery("shop")

@app.task(name="shop.wait", track_started=True)
def wait():
    time.sleep(60)

@app.task(name="shop.note")
def note(path):
    open(path, "w").close()
"""
#: `note` waits behind `wait` for the worker's one thread.
REVOKE = """
import time
app.conf.task_default_queue = {queue!r}
running, waiting = send("shop.wait"), send("shop.note", [{noted!r}])
while running.state != "STARTED":
    time.sleep(0.02)
app.control.revoke(waiting.id)
app.control.revoke(running.id, terminate=True)
for each in (running, waiting):
    print(type(each.get(timeout=40, propagate=False)).__name__, each.state)
"""


def said(body: Any, content_type: str = "application/json") -> dict[str, Any]:
    return {"body": json.dumps(body), "content-type": content_type, "headers": {}, "properties": {}}


def revoke(**arguments: Any) -> dict[str, Any]:
    return {"method": "revoke", "arguments": arguments, "destination": None, "pattern": None}


@pytest.mark.slow
@pytest.mark.parametrize("old", ["same-redis", "rabbitmq"], indirect=True)
def test_what_a_producer_revokes_does_not_run_and_what_runs_is_ended(
    old: Old, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    folder, noted = tmp_path / "parts", tmp_path / "noted"
    folder.mkdir()
    (folder / "shop.py").write_text(APP)
    parts = Parts({**environment, "PYTHONPATH": str(folder)}, folder)
    try:
        bridge = parts.start("bridge", "--from", old.url, "--queues", old.queue, "--app", "shop", ready=False)
        parts.start("-A", "shop", "worker", "-c", "1", program=[str(WORKER)], cwd=folder)
        program = REVOKE.format(queue=old.queue, noted=str(noted))
        assert celery(old.url, program, settings.events_url) == "TaskRevokedError REVOKED\n" * 2
        assert parts.stop(bridge) == 0
    finally:
        parts.end()
    assert not noted.exists()


def test_a_task_of_dreams_own_that_was_revoked_before_it_was_moved_expires(old_redis: Old) -> None:
    with old_redis.handover() as (handover, _):
        handover.revoke(Revocation(("unwanted",), terminate=False))
    old_redis.send(f'send({CLEAN_UP!r}, task_id="unwanted")\nsend({CLEAN_UP!r}, task_id="wanted")')
    assert old_redis.move() == Moved(handed_over=2)
    with default().database.read() as session:
        unwanted, wanted = (session.get(DreamTask, each) for each in ("unwanted", "wanted"))
    assert unwanted is not None
    assert unwanted.expires_at is not None
    assert unwanted.expires_at <= datetime.now(UTC)
    assert wanted is not None
    assert wanted.expires_at is None


@pytest.mark.parametrize("old", ["same-redis", "rabbitmq"], indirect=True)
@pytest.mark.slow
def test_what_anybody_else_says_there_does_no_harm(old: Old) -> None:
    """Not JSON, not of kombu's, or too deep to read: the bridge goes on."""
    strange = (b"\xff", b"[" * 100_000, b"7", b"{}", b'{"body": 3, "content-type": "application/json"}')
    source, stopped = open_source(old.settings, old.url, [old.queue]), threading.Event()
    with old.handover() as (handover, _):
        bridge = Bridge(source, handover)
        running = threading.Thread(target=bridge.run, args=(stopped.wait,), kwargs={"drain": False})
        running.start()
        try:
            old.send('send("shop.add", [1, 2])')
            wait_for(lambda: bridge.moved.total == 1, what="the first task")
            publish(old.url, strange)
            old.send('send("shop.add", [3, 4])')
            wait_for(lambda: bridge.moved.total == 2, what="the second task")
        finally:
            stopped.set()
            running.join()
    source.close()


def test_a_bridge_that_may_not_listen_moves_all_the_same(old_redis: Old) -> None:
    """A user of Redis has no channels by default."""
    url = urlsplit(old_redis.url)
    deaf = Old(old_redis.settings, url._replace(netloc=f"deaf:deaf@{url.hostname}:{url.port}").geturl())
    deaf.queue = old_redis.queue
    old_redis.send('send("shop.add", [1, 2])')
    with redis.Redis.from_url(old_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">deaf", "~*", "+@all", "resetchannels")
        with pytest.raises(NoPermissionError):
            publish(deaf.url, (b"{}",))
        assert deaf.move() == Moved(handed_over=1)
        client.acl_deluser("deaf")


def publish(url: str, bodies: tuple[bytes, ...]) -> None:
    if url.startswith("amqp"):
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            for body in bodies:
                channel.basic_publish(EXCHANGE, "", body, pika.BasicProperties(content_type="application/json"))
        return
    with redis.Redis.from_url(url) as client:
        database = client.get_connection_kwargs().get("db", 0)
        for body in bodies:
            assert client.publish(f"/{database}.{EXCHANGE}", body) == 1


@pytest.mark.parametrize(
    ("raw", "revoked"),
    [
        (said(revoke(task_id="a", terminate=True, signal="SIGKILL")), Revocation(("a",), terminate=True)),
        (said(revoke(task_id=["a", "b"], terminate=False)), Revocation(("a", "b"), terminate=False)),
        (said(revoke(task_id=["a", 3])), None),
        (said(revoke()), None),
        (said(revoke(task_id="\ud800")), None),
        (said(revoke(task_id="a\0")), None),
        (said(revoke(task_id="a" * 1000)), None),
        (said(revoke(task_id=None)), None),
        (said({**revoke(task_id="a"), "arguments": ["a"]}), None),
        (said({**revoke(task_id="a"), "method": "ping"}), None),
        (said({**revoke(task_id="a"), "destination": ["celery@old"]}), None),
        (said({**revoke(task_id="a"), "pattern": "celery@*", "matcher": "glob"}), None),
        (said(revoke(task_id="a"), "application/x-python-serialize"), None),
        (said(["revoke"]), None),
        ("revoke", None),
    ],
)
def test_only_revocations_for_all_workers_are_read(raw: object, revoked: Revocation | None) -> None:
    assert revocation_in(raw) == revoked


def test_many_are_told_in_two() -> None:
    heard = [Revocation((each,), terminate=each == "b") for each in "abca"]
    assert merged(heard) == [Revocation(("a", "c"), terminate=False), Revocation(("b",), terminate=True)]

"""A scene that leaves something of every kind in Redis and in the rows: the same calls on any release.

Only documented names are used here, so that `python -m pytest` plays it on an older checkout as well (README.md).
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import gethostname
from typing import Any
from urllib.parse import urlsplit

import redis
from dramatiq import Message
from sqlalchemy import create_engine, text

from dream.celery import celery_app
from dream.celery.tasks.image_tasks import delete_images
from dream.compat import Celery
from dream.producer import Delivery, default
from dream.settings import Settings
from tests.conftest import wait_for
from tests.pictures import noise
from tests.processes import Parts

__all__ = ["CLEAN_UP", "DELETE", "SHOP", "UPLOAD", "Recorder", "play", "rows_of", "shape"]

UPLOAD = "dream.celery.tasks.image_tasks.process_and_upload_images"
DELETE = "dream.celery.tasks.image_tasks.delete_dream_images"
CLEAN_UP = "dream.celery.tasks.token_tasks.cleanup_expired_tokens"
ROOT = Path(__file__).resolve().parents[2]
TABLES = ("dream_tasks", "dream_images", "dreams", "dream_periodic", "dream_revoked_tokens", "dream_marks")

SHOP = """
import time
from pathlib import Path
from dream.compat import Celery

app = Celery("shop")
app.conf.beat_schedule = {"nightly": {"task": "shop.add", "schedule": 86400.0, "args": (1, 1)}}

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.fail")
def fail():
    raise LookupError("gone", 7)

@app.task(name="shop.again", bind=True, max_retries=3)
def again(self):
    if self.request.retries:
        return "retried"
    raise self.retry(exc=KeyError("not yet"), countdown=300)

@app.task(name="shop.sleep", bind=True)
def sleep(self, path):
    if self.request.delivery_info["redelivered"]:
        return "again"
    Path(path).touch()
    while True:
        time.sleep(0.05)
"""


class Recorder:
    """Reads all that a scene has left, with the scene's own names replaced by fixed ones."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        endpoint = str(settings.s3_endpoint_url).rstrip("/")
        self._names = ((settings.redis_prefix, "dream"), (settings.s3_bucket, "dream-recorded"))
        self._names += ((urlsplit(endpoint).netloc, "127.0.0.1:8333"), (f"@{gethostname()}", "@host"))
        self._names += ((sys.prefix, "/srv/venv"), (str(ROOT), "/srv/dream"), (str(folder), "/srv/shop"))

    def named(self, value: str) -> str:
        for name, fixed in self._names:
            value = value.replace(name, fixed)
        return value

    def redis(self) -> list[dict[str, Any]]:
        """Every key of ours in Redis: its name, type and value."""
        with redis.Redis.from_url(self._settings.events_url) as client:
            names = {*client.scan_iter(f"{self._settings.redis_prefix}:*"), *client.scan_iter("celery-task-meta-*")}
            found = [self._key(client, name) for name in sorted(names)]
        return [key for key in found if key["value"]]

    def _key(self, client: redis.Redis, name: bytes) -> dict[str, Any]:
        kind = client.type(name).decode()  # type: ignore[union-attr]
        read: dict[str, Callable[[], Any]] = {
            "string": lambda: self._text(client.get(name)),
            "list": lambda: [self._text(each) for each in client.lrange(name, 0, -1)],
            "set": lambda: sorted(self._text(each) for each in client.smembers(name)),
            "hash": lambda: {self._text(at): self._text(each) for at, each in client.hgetall(name).items()},
            "zset": lambda: [[self._text(each), score] for each, score in client.zrange(name, 0, -1, withscores=True)],
            "stream": lambda: [
                [at.decode(), {field.decode(): self._text(each) for field, each in entry.items()}]
                for at, entry in client.xrange(name)
            ],
            "none": lambda: None,
        }
        return {"key": self._text(name), "type": kind, "expires": client.ttl(name) > 0, "value": read[kind]()}

    def _text(self, data: Any) -> str:
        return self.named(data.decode("utf-8", "backslashreplace"))

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        return json.loads(self.named(json.dumps(rows_of(self._settings.database_url))))


def rows_of(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of ours in an SQLite database, as its file holds it."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]  # noqa: S608
            for table in TABLES
        }
    engine.dispose()
    return found


def shape(value: Any) -> Any:
    """Names and types of JSON, without its values; JSON inside strings is read."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            return "str"
        return {"json": shape(inner)} if isinstance(inner, dict | list) else "str"
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return {bool: "bool", int: "number", float: "number", type(None): "null"}[type(value)]


def play(settings: Settings, parts: Parts, folder: Path) -> dict[str, Any]:
    """Play the scene in a process that is configured by the environment of `parts`.

    Returns:
      `waiting`: Redis before any worker; `left`: Redis and rows after one was killed; `asked`: a question to workers
      and an answer; `present`: how a scheduler registers.
    """
    (folder / "shop.py").write_text(SHOP)
    recorder = Recorder(settings, folder)
    _retry(settings, parts)
    _send_waiting(settings)
    waiting = {"keys": recorder.redis(), "rows": recorder.rows()}
    worker = parts.start("worker", "-A", "shop", cwd=folder)
    scheduler = parts.start("scheduler", "-A", "shop", cwd=folder)
    asked = _ask(settings)
    present = wait_for(lambda: [key for key in recorder.redis() if key["key"] == "dream:parts"], what="the scheduler")
    wait_for(lambda: _ended(settings) >= 7, 60, "the ends of our own tasks")
    delete_images(7, [{"id": 1, "url": _url_of(settings, "c.jpg")}], "kim")
    wait_for(lambda: _ended(settings) >= 9, 60, "the end of the deletion")
    shop = Celery("caller")
    ends = {"add-1": "SUCCESS", "linked-1": "SUCCESS", "fail-1": "FAILURE", "again-1": "RETRY", "revoked-1": "REVOKED"}
    for task_id, state in ends.items():
        wait_for(lambda: shop.AsyncResult(task_id).state == state, what=f"{task_id} to be {state}")  # noqa: B023
    parts.stop(scheduler)
    parts.stop(worker)
    _be_killed(settings, parts, folder)
    _bridge(settings, parts)
    default().upload_images(8, [_file("waits.jpg")], task_id="up-waits")
    delete_images(7, [{"id": 1, "url": _url_of(settings, "a.jpg")}], "kim")
    left = {"keys": recorder.redis(), "rows": recorder.rows()}
    return {"waiting": waiting, "left": left, "asked": asked, "present": present[0]}


def _file(name: str, data: bytes | None = None) -> Any:
    return {"name": name, "data": data or noise()}


def _send_waiting(settings: Settings) -> None:
    """One of each kind of message, with no worker there."""
    producer, shop = default(), Celery("caller")
    producer.set_owner(7, 70, "kim")
    engine = create_engine(settings.database_url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO dream_revoked_tokens VALUES ('token-1', '2099-01-01 00:00:00.000000', 70)")
        )
    engine.dispose()
    producer.upload_images(7, [_file("a.jpg"), _file("b.jpg")], [3, 5], task_id="up-ok", user_id=70)
    producer.upload_images(7, [_file("c.jpg"), _file("d.jpg", b"no picture")], task_id="up-part")
    producer.upload_images(7, [_file("e.jpg", b"no picture")], task_id="up-bad")
    producer.upload_images(7, [_file("f.jpg")], task_id="up-revoked", delivery=Delivery(due_in_s=2))
    producer.delete_images(
        7, [{"id": 9, "url": "https://elsewhere.example/dreams/20250101/x.jpg"}], "kim", task_id="del-1"
    )
    celery_app.send_task(CLEAN_UP, task_id="clean-1")
    celery_app.send_task(CLEAN_UP, task_id="clean-later", countdown=300)
    inline = [{"name": "g.jpg", "data": _base64(noise(16, 12))}]
    producer.broker.enqueue(
        Message(settings.queue_prefix + "dream_image_processing", UPLOAD, (7, inline, [1]), {}, {}, "inline-1")
    )
    celery_app.control.revoke("up-revoked")
    link = shop.signature("shop.add", args=(10,), options={"task_id": "linked-1"})
    how: dict[str, Any] = {"headers": {"tenant": 7}, "priority": 3, "shadow": "sum", "app_id": "web"}
    limits: dict[str, Any] = {"time_limit": 60, "soft_time_limit": 50, "expires": "2099-01-01T00:00:00+00:00"}
    shop.send_task("shop.add", (1, 2), task_id="add-1", link=link, link_error=link, **how, **limits)
    shop.send_task("shop.add", (3, 4), task_id="later-1", countdown=300)
    shop.send_task("shop.add", (3, 4), task_id="revoked-1", countdown=2)
    shop.send_task("shop.fail", task_id="fail-1")
    shop.send_task("shop.again", task_id="again-1")
    shop.control.revoke("revoked-1")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _retry(settings: Settings, parts: Parts) -> None:
    """A task of ours that failed once and waits for its next run: its worker did not reach the object store."""
    default().upload_images(7, [_file("r.jpg")], task_id="up-retried")
    worker = parts.start("worker", DREAM_S3_ENDPOINT_URL="http://127.0.0.1:9")
    wait_for(lambda: _task(settings, "up-retried")["attempts"] == 1, 60, "the failed run")
    parts.stop(worker)


def _be_killed(settings: Settings, parts: Parts, folder: Path) -> None:
    """A worker that dies with a picture and a caller's task in work."""
    shop = Celery("caller")
    path = folder / "asleep"
    worker = parts.start("worker", "-A", "shop", cwd=folder, DREAM_FAULT="put:before=hang")
    shop.send_task("shop.sleep", (str(path),), task_id="sleep-1")
    wait_for(path.exists, what="the caller's run")
    default().upload_images(8, [_file("dies.jpg")], task_id="up-died")
    images = lambda: rows_of(settings.database_url)["dream_images"]  # noqa: E731
    wait_for(lambda: [row for row in images() if row["state"] == "processing"], what="the picture in work")
    parts.kill(worker)
    wait_for(lambda: not parts.running(), what="the end of its children")


def _ask(settings: Settings) -> dict[str, str]:
    """A question as it is published, and an answer as it lies in its list."""
    with closing(redis.Redis.from_url(settings.events_url)) as client:
        heard = client.pubsub()
        heard.subscribe(f"{settings.redis_prefix}:workers:questions")
        celery_app.control.inspect(timeout=2).ping()
        question = wait_for(lambda: heard.get_message(ignore_subscribe_messages=True, timeout=1), what="the question")
        heard.close()
        ask = {**json.loads(question["data"]), "ticket": "recorded"}
        client.publish(f"{settings.redis_prefix}:workers:questions", json.dumps(ask))
        answer = client.blpop([f"{settings.redis_prefix}:workers:answers:recorded"], 10)
    return {"question": json.dumps(ask), "answer": answer[1].decode()}  # type: ignore[index,union-attr]


def _bridge(settings: Settings, parts: Parts) -> None:
    """Messages of Celery: one is parked, and one in flight when the bridge dies."""
    head = {"id": "old-1", "task": "nobody.knows", "lang": "py", "argsrepr": "()", "kwargsrepr": "{}", "retries": 0}
    message: dict[str, Any] = {
        "body": _base64(json.dumps([[1], {}, {"callbacks": None, "errbacks": None}]).encode()),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**head, "root_id": "old-1", "parent_id": None, "eta": None, "expires": None, "origin": "1@web"},
        "properties": {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "old"}, "priority": 0},
    }
    message["properties"] |= {"body_encoding": "base64", "delivery_tag": "old-1", "correlation_id": "old-1"}
    queue = f"{settings.redis_prefix}-old"
    command = ("bridge", "--from", settings.broker_url, "--queues", queue, "--drain")
    with closing(redis.Redis.from_url(settings.broker_url)) as client:
        client.lpush(queue, json.dumps(message))
        parts.start(*command, ready=False).wait(60)
        message["headers"] |= {"id": "old-2", "task": CLEAN_UP}
        message["body"] = _base64(json.dumps([[], {}, {}]).encode())
        client.lpush(queue, json.dumps(message))
        parts.start(*command, ready=False, DREAM_FAULT="bridge_accept:before=kill").wait(60)
        client.delete(queue)


def _task(settings: Settings, task_id: str) -> dict[str, Any]:
    return next(row for row in rows_of(settings.database_url)["dream_tasks"] if row["id"] == task_id)


def _ended(settings: Settings) -> int:
    return sum(row["announced_at"] is not None for row in rows_of(settings.database_url)["dream_tasks"])


def _url_of(settings: Settings, name: str) -> str:
    return next(row["url"] for row in rows_of(settings.database_url)["dream_images"] if row["filename"] == name)

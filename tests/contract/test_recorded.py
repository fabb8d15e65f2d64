"""Data of the release before issue 11: the present code reads it, runs it, and writes the same fields."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Connection, create_engine, make_url, text

from dream.celery import celery_app
from dream.compat import Celery
from dream.db import Database, DreamImage, DreamTask, migrate
from dream.messages.states import ImageState, TaskState
from dream.settings import Settings
from dream.storage import Storage
from dream.work.questions import Answer, Question
from tests.conftest import created_database, wait_for
from tests.pictures import noise
from tests.processes import Parts
from tests.recorded.scene import CLEAN_UP, DELETE, SHOP, UPLOAD, play, shape
from tests.this_process import configured

RECORDED = Path(__file__).parents[1] / "recorded"
SCENE: dict[str, Any] = json.loads((RECORDED / "scene.json").read_text())
#: The revision of the tables at that time.
REVISION = "0007"

#: Every pattern of a key in Redis, with the prefix `dream`.
KEYS = {
    "celery-task-meta-<task>": "string",
    "dream:<queue>": "list",
    "dream:<queue>.msgs": "hash",
    "dream:<queue>.DQ": "list",
    "dream:<queue>.DQ.msgs": "hash",
    "dream:<queue>.XQ": "zset",
    "dream:<queue>.XQ.msgs": "hash",
    "dream:__acks__.<uuid>.<queue>": "set",
    "dream:__acks__.<uuid>.<queue>.DQ": "set",
    "dream:__heartbeats__": "zset",
    "dream:__looked__.<uuid>": "string",
    "dream:bridge:in_flight": "hash",
    "dream:bridge:parked": "hash",
    "dream:bridge:taken": "string",
    "dream:events:<number>": "stream",
    "dream:revoked": "zset",
    "dream:told:<task>": "hash",
}
#: Names of keys and channels that the scene does not leave: they are there for seconds, or with RabbitMQ.
OTHER_KEYS = (
    ":bridge:first:",
    ":bridge:seen:",
    ":events:wake",
    ":parts",
    ":suspects:",
    ":workers:answers:",
    ":workers:questions",
    ":once:",
    ":end:",
)

#: A mark that is there for a minute, and only if a worker counted as dead while the scene was played.
PASSING = "dream:__looked__."

_MASKS = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b(default|dream_image_processing)\b"), "<queue>"),
    (re.compile(r"(?<=celery-task-meta-).*|(?<=:told:).*"), "<task>"),
    (re.compile(r"(?<=:events:)\d+"), "<number>"),
)


def pattern(key: str) -> str:
    for found, name in _MASKS:
        key = found.sub(name, key)
    return key


# --- reading


def test_the_patterns_of_keys_are_those_of_the_record() -> None:
    recorded = {pattern(each["key"]): each["type"] for moment in ("waiting", "left") for each in SCENE[moment]["keys"]}
    assert recorded == KEYS


def test_key_names_that_last_for_seconds_are_in_the_code() -> None:
    code = "".join(path.read_text() for path in (RECORDED.parents[1] / "dream").rglob("*.py"))
    assert [name for name in OTHER_KEYS if name not in code] == []


def test_names_of_tasks_and_queues_are_those_of_the_record() -> None:
    messages = [
        json.loads(body)
        for each in SCENE["waiting"]["keys"]
        if each["key"].endswith(".msgs")
        for body in each["value"].values()
    ]
    known = {(UPLOAD, "dream_image_processing"), (DELETE, "dream_image_processing"), (CLEAN_UP, "default")}
    found = {(each["actor_name"], each["queue_name"].removesuffix(".DQ")) for each in messages}
    assert {pair for pair in found if pair[0].startswith("dream.")} == known


def test_a_question_and_an_answer_are_read_and_written_as_they_were() -> None:
    question, answer = SCENE["asked"]["question"], SCENE["asked"]["answer"]
    assert json.loads(Question.decode(question).encode()) == json.loads(question)
    assert json.loads(Answer.decode(answer).encode()) == json.loads(answer)


@pytest.fixture(params=["sqlite", "postgresql"])
def rows_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with the recorded rows, upgraded by the present migrations."""
    if request.param == "sqlite":
        yield restored_sqlite(tmp_path / "recorded.db")
    else:
        with created_database(request.getfixturevalue("postgres_server_url"), f"dream_old_{uuid4().hex[:12]}") as url:
            yield restored_postgres(url)


def restored_sqlite(path: Path, bucket: str = "dream-recorded") -> str:
    with sqlite3.connect(path) as connection:
        connection.executescript((RECORDED / "rows.sql").read_text().replace("dream-recorded", bucket))
    connection.close()
    migrate.upgrade(f"sqlite:///{path}")
    return f"sqlite:///{path}"


def restored_postgres(url: str, bucket: str = "dream-recorded") -> str:
    migrate.upgrade(url, REVISION)
    with _begun(url) as connection:
        for table, rows in json.loads(json.dumps(SCENE["left"]["rows"]).replace("dream-recorded", bucket)).items():
            for row in rows:
                columns = ", ".join(f'"{name}"' for name in row)
                values = ", ".join(f":{name}" for name in row)
                connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), _for_postgres(row))  # noqa: S608
        connection.execute(text("SELECT setval('dream_images_id_seq', 1000)"))
    migrate.upgrade(url)
    return url


def _for_postgres(row: dict[str, Any]) -> dict[str, Any]:
    """As text, which PostgreSQL gives its column's type; times with the zone that SQLite leaves out."""
    texts = {name: None if value is None else str(value) for name, value in row.items()}
    return texts | {name: f"{value}+00" for name, value in texts.items() if value and name.endswith("_at")}


def test_every_row_is_read(rows_url: str) -> None:
    """The record has rows in every state; what they say is told as it was then."""
    database = Database(Settings(database_url=rows_url))
    with database.read() as session:
        tasks, images = session.query(DreamTask).all(), session.query(DreamImage).all()
        assert {task.state for task in tasks} == set(TaskState)
        assert {image.state for image in images} == set(ImageState)
        before = {row["id"]: row for row in SCENE["left"]["rows"]["dream_tasks"]}
        assert {task.id: task.error_class for task in tasks} == {key: row["error_class"] for key, row in before.items()}
        assert {task.id: task.args for task in tasks} == {key: json.loads(row["args"]) for key, row in before.items()}
    database.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("error_class", ["dream.errors:ImageRejected", "dream.compat.exceptions:TaskError", None])
def test_the_result_of_a_row_is_what_it_was(
    rows_url: str, environment: dict[str, str], settings: Settings, error_class: str | None
) -> None:
    """Its error has the class that the row names; a row of a still older release names none."""
    with _begun(rows_url) as connection:
        changed = text("UPDATE dream_tasks SET error_class = :it WHERE id = 'up-bad'")
        connection.execute(changed, {"it": error_class})
    with configured({**environment, "DREAM_DATABASE_URL": rows_url}):
        for task_id, meta in SCENE["metas"].items():
            if task_id == "up-bad":
                module, _, name = (error_class or "dream.compat.exceptions:TaskError").partition(":")
                meta = {**meta, "result": {**meta["result"], "exc_module": module, "exc_type": name}}
            check(celery_app.AsyncResult(task_id), meta)


def check(result: Any, meta: dict[str, Any]) -> None:
    """The result is the recorded one; an error is of the recorded class, or of the one that stands in for it."""
    assert result.state == meta["status"], meta["task_id"]
    error = meta["result"]
    if isinstance(error, dict) and "exc_type" in error:
        assert isinstance(result.result, Exception)
        assert type(result.result).__name__ == error["exc_type"]
        modules = (error["exc_module"], error["exc_module"].replace("celery.", "dream.compat.", 1))
        assert type(result.result).__module__ in modules
        assert str(error["exc_message"][0]) in str(result.result)
    else:
        assert result.result == error


def test_every_result_in_redis_is_read(environment: dict[str, str], settings: Settings) -> None:
    restore("left", settings)
    with configured(environment):
        shop = Celery("shop")
        metas = [json.loads(each["value"]) for each in SCENE["left"]["keys"] if each["key"].startswith("celery-task")]
        assert {meta["status"] for meta in metas} == {"SUCCESS", "FAILURE", "RETRY", "REVOKED"}
        for meta in metas:
            check(shop.AsyncResult(meta["task_id"]), meta)
        assert [child.id for child in shop.AsyncResult("add-1").children] == ["linked-1"]


# --- running


def restore(moment: str, settings: Settings) -> None:
    """Put the recorded keys into Redis, under the prefix of these settings."""
    with redis.Redis.from_url(settings.events_url) as client:
        for each in SCENE[moment]["keys"]:
            name = re.sub("^dream:", f"{settings.redis_prefix}:", each["key"])
            _put(client, name, each["type"], each["value"])
            if each["expires"]:
                client.expire(name, 3600)


def _put(client: redis.Redis, name: str, kind: str, value: Any) -> None:
    put: dict[str, Callable[[], Any]] = {
        "string": lambda: client.set(name, value),
        "list": lambda: client.rpush(name, *value),
        "set": lambda: client.sadd(name, *value),
        "hash": lambda: client.hset(name, mapping=value),
        "zset": lambda: client.zadd(name, dict(value)),
        "stream": lambda: [client.xadd(name, fields, id=at) for at, fields in value],
    }
    put[kind]()


@contextmanager
def _begun(url: str) -> Iterator[Connection]:
    engine = create_engine(make_url(url.replace("postgresql://", "postgresql+psycopg://")))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(params=["sqlite and valkey", "postgresql and redis"])
def old_system(
    request: pytest.FixtureRequest, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Servers with all that the recorded workers, bridge and callers left, and the bytes of waiting pictures."""
    storage = Storage(settings)
    for row in SCENE["left"]["rows"]["dream_images"]:
        if row["staging_key"]:
            storage.put_bytes(settings.s3_bucket, row["staging_key"], noise())
    if request.param == "sqlite and valkey":
        url = restored_sqlite(tmp_path / "recorded.db", settings.s3_bucket)
        restore("left", settings)
        yield {**environment, "DREAM_DATABASE_URL": url}
        return
    server, redis_url = request.getfixturevalue("postgres_server_url"), request.getfixturevalue("local_redis_url")
    with created_database(server, f"dream_old_{uuid4().hex[:12]}") as url:
        restored_postgres(url, settings.s3_bucket)
        there = {"DREAM_BROKER_URL": redis_url, "DREAM_REDIS_URL": redis_url, "DREAM_DATABASE_URL": url}
        moved = settings.model_copy(update={"broker_url": redis_url, "redis_url": redis_url})
        restore("left", moved)
        yield {**environment, **there}
        with redis.Redis.from_url(redis_url) as client:
            for key in [*client.scan_iter(f"{settings.redis_prefix}:*"), *client.scan_iter("celery-task-meta-*")]:
                client.delete(key)


@pytest.mark.slow
def test_all_that_was_left_runs(old_system: dict[str, str], tmp_path: Path) -> None:
    """Messages that waited, were delayed, or were in the hands of a killed worker or a killed bridge."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP)
    parts = Parts(old_system, folder)
    with configured(old_system) as settings:
        try:
            parts.start("worker", "-A", "shop", cwd=folder, ready=False)
            parts.start("bridge", "--from", settings.broker_url, "--queues", "nothing", "--drain", ready=False)
            own, shop = ["up-waits", "up-died", "up-retried", "clean-later", "old-2"], Celery("caller")
            for task_id in own:
                wait_for(celery_app.AsyncResult(task_id).successful, 60, f"the success of {task_id}")
            for task_id, result in {"again-1": "retried", "later-1": 7, "sleep-1": "again"}.items():
                wait_for(shop.AsyncResult(task_id).ready, 60, f"the end of {task_id}")
                assert shop.AsyncResult(task_id).result == result
            wait_for(lambda: _states(settings)["a.jpg"] == "deleted", what="the deletion")
        finally:
            parts.end()
    assert {name for name, state in _states(settings).items() if state == "completed"} >= {"waits.jpg", "dies.jpg"}


def _states(settings: Settings) -> dict[str, str]:
    with _begun(settings.database_url) as connection:
        return {row.filename: row.state for row in connection.execute(text("SELECT filename, state FROM dream_images"))}


# --- writing


@pytest.fixture
def parts(environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Parts]:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    yield parts
    parts.end()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_written_has_the_fields_that_were_written(
    environment: dict[str, str], settings: Settings, parts: Parts, tmp_path: Path
) -> None:
    """So the recorded release reads it: fields may be added, none may be missing or of another type."""
    folder = tmp_path / "shop"
    folder.mkdir()
    with configured(environment):
        played = json.loads(json.dumps(play(settings, parts, folder)))
    for moment in ("waiting", "left"):
        lasting = [each for each in SCENE[moment]["keys"] if not each["key"].startswith(PASSING)]
        for before in lasting:
            if before["type"] in ("hash", "string"):
                assert missing(before, played[moment]["keys"]) == [], (moment, before["key"])
        for event in events(SCENE[moment]["keys"]):
            same = [each for each in events(played[moment]["keys"]) if each["status"] == event["status"]]
            assert [] in [less(shape(event), shape(each)) for each in same], event
        kinds = {pattern(each["key"]): each["type"] for each in played[moment]["keys"]}
        then = {pattern(each["key"]): each["type"] for each in lasting}
        assert {key: kind for key, kind in then.items() if kinds.get(key) != kind} == {}
    for table, rows in SCENE["left"]["rows"].items():
        now = {str(row.get("id")): row for row in played["left"]["rows"][table]}
        for row in rows:
            if (same := now.get(str(row.get("id")))) is not None:
                assert less(shape(row), shape(same)) == [], (table, row)
    for name in ("question", "answer"):
        assert less(shape(SCENE["asked"][name]), shape(played["asked"][name])) == []
    assert played["present"]["value"][0][0].startswith("scheduler@host:")


def events(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(entry["event"]) for each in keys if each["type"] == "stream" for _, entry in each["value"]]


def missing(before: dict[str, Any], now: list[dict[str, Any]]) -> list[str]:
    """The fields of a recorded key that none of the keys of its kind has now, where both have the same entries."""
    same = [each for each in now if pattern(each["key"]) == pattern(before["key"])]
    exact = [each for each in same if each["key"] == before["key"]] or same
    return min((less(shape(before["value"]), shape(each["value"])) for each in exact), key=len, default=["the key"])


def less(before: Any, now: Any, path: str = "") -> list[str]:
    """The paths at which `now` lacks what `before` has, or has another type."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name, each in before.items():
            if name in now:
                found += less(each, now[name], f"{path}/{name}")
            elif not _is_random(name):
                found.append(f"{path}/{name}")
        return found
    if isinstance(before, list) and isinstance(now, list):
        pairs = zip(before, now, strict=False)
        return [each for number, (one, other) in enumerate(pairs) for each in less(one, other, f"{path}/{number}")]
    return [] if before == now or "null" in (before, now) else [f"{path}: {before} is {now}"]


def _is_random(name: str) -> bool:
    """An id, or a time inside a name."""
    return re.search(r"[0-9a-f]{16}|[0-9a-f]{8}-[0-9a-f]{4}-|^end:|\d{13}", name) is not None

"""Results in Redis: what we keep the real Celery reads, and what it keeps we read."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from dream import producer
from dream.compat import AsyncResult, Celery, exceptions
from dream.compat.failures import write_error
from dream.db import tasks
from dream.errors import DatabaseUnavailable
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import TaskState
from dream.runs import outcomes
from dream.settings import Settings
from dream.work.results import ResultStore, meta_of
from tests import real_celery
from tests.this_process import forget

NOT_JSON = {"at": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=7), "cost": Decimal("1.5"), "raw": b"\xff"}


@pytest.fixture
def store(as_environment: None, settings: Settings) -> Iterator[ResultStore]:
    with closing(ResultStore(settings)) as store:
        yield store


def celery(settings: Settings, program: str) -> list[str]:
    """The lines that a process with the real Celery writes."""
    head = f"from celery import Celery, states\napp = Celery(backend={settings.events_url!r})\n"
    return real_celery.run(head + program).splitlines()


def test_a_task_that_nobody_knows_is_pending(store: ResultStore) -> None:
    """As in Celery: a caller may look before the sender has committed."""
    result = AsyncResult("nobody")
    assert (result.state, result.status, result.result, result.ready()) == ("PENDING", "PENDING", None, False)


def test_to_wait_on_a_running_loop_is_warned_of(store: ResultStore) -> None:
    """Once; a look that waits for nothing is not."""
    program = """
import asyncio, warnings
from dream.compat import AsyncResult, exceptions
async def main():
    result = AsyncResult("nobody")
    print(result.state)
    for _ in range(2):
        try:
            result.get(timeout=0.01)
        except exceptions.TimeoutError:
            print("waited")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    asyncio.run(main())
print([(one.category.__name__, str(one.message).partition(" ")[0], one.lineno) for one in caught])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "PENDING",
        "waited",
        "waited",
        "[('BlockingCallWarning', 'AsyncResult.get', 9)]",
    ], done.stderr


def test_who_has_callers_tasks_alone_needs_no_tables(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_DATABASE_URL", f"sqlite:///{tmp_path / 'bare.db'}")
    forget()
    result = AsyncResult("nobody")
    assert result.state == "PENDING"
    result.revoke()
    assert result.state == "REVOKED"


def test_a_database_that_is_away_is_not_one_without_tables(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_DATABASE_URL", f"sqlite:///{tmp_path / 'no folder' / 'dream.db'}")
    forget()
    with pytest.raises(DatabaseUnavailable):
        _ = AsyncResult("nobody").state


def test_the_real_celery_reads_what_we_keep(settings: Settings, store: ResultStore) -> None:
    """Results, errors as their own class, states of a caller's own, children."""
    store.put(meta_of("ok", "SUCCESS", NOT_JSON, children=["child"]))
    store.put(meta_of("bad", "FAILURE", write_error(ValueError("no")), traceback="Traceback …"))
    store.put(meta_of("gone", "REVOKED", write_error(exceptions.TaskRevokedError("terminated"))))
    store.put(meta_of("half", "PROGRESS", {"done": 5}))
    program = """
from celery.exceptions import TaskRevokedError
ok, bad, gone, half = map(app.AsyncResult, ("ok", "bad", "gone", "half"))
print(ok.get(timeout=5), ok.children[0].id, ok.date_done.utcoffset())
print(repr(bad.get(timeout=5, propagate=False)), bad.traceback)
print(isinstance(gone.get(timeout=5, propagate=False), TaskRevokedError), half.state, half.info)
"""
    assert celery(settings, program) == [
        f"{NOT_JSON} child 0:00:00",
        "ValueError('no') Traceback …",
        "True PROGRESS {'done': 5}",
    ]


def test_we_read_what_the_real_celery_keeps(settings: Settings, store: ResultStore) -> None:
    program = f"""
import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID
from celery.exceptions import MaxRetriesExceededError, Retry
store = app.backend.store_result
store("ok", {NOT_JSON!r}, states.SUCCESS)
store("bad", KeyError("x"), states.FAILURE, traceback="Traceback …")
store("many", MaxRetriesExceededError("too often"), states.FAILURE)
store("again", ZeroDivisionError("by zero"), states.RETRY)
store("runs", {{"pid": 1}}, states.STARTED)
"""
    celery(settings, program)
    assert AsyncResult("ok").get(timeout=5) == NOT_JSON
    with pytest.raises(KeyError, match="x"):
        AsyncResult("bad").get(timeout=5)
    assert AsyncResult("bad").traceback == "Traceback …"
    assert str(AsyncResult("many").result) == "too often"
    assert (AsyncResult("again").state, type(AsyncResult("again").info)) == ("RETRY", ZeroDivisionError)
    assert (AsyncResult("runs").state, AsyncResult("runs").ready()) == ("STARTED", False)


def test_a_failure_of_which_no_error_is_kept_is_an_error(store: ResultStore) -> None:
    store.put(meta_of("bare", "FAILURE"))
    with pytest.raises(exceptions.TaskError, match="its error is not stored"):
        AsyncResult("bare").get(timeout=5)


def test_the_real_celery_returns_when_a_task_of_ours_ends(settings: Settings, store: ResultStore) -> None:
    """It waits before the end comes, and the row's end is said in its form."""
    database = producer.default().database
    with database.begin() as session:
        tasks.add(session, "ours", CLEANUP_TOKENS, [])
        session.flush()
        claim = tasks.claim(session, "ours", 60)
    assert claim is not None
    program = "print(app.AsyncResult('ours').get(timeout=30))"
    said: list[str] = []
    waiting = threading.Thread(target=lambda: said.extend(celery(settings, program)))
    waiting.start()
    client = redis.Redis.from_url(settings.events_url)
    give_up = time.monotonic() + 20
    while not client.pubsub_numsub("celery-task-meta-ours")[0][1] and time.monotonic() < give_up:
        threading.Event().wait(0.02)
    with database.begin() as session:
        tasks.finish(session, claim, TaskState.SUCCEEDED, result=3)
    outcomes.announce(producer.default().connections, "ours")
    waiting.join()
    client.close()
    assert said == ["3"]


def test_a_wait_ends_when_the_result_is_published(store: ResultStore) -> None:
    """Not at the next look, which is 20 s away."""
    published: list[float] = []

    def publish() -> None:
        store.put(meta_of("t", "STARTED"))
        published.append(time.monotonic())
        store.put(meta_of("t", "SUCCESS", 1))

    ending = threading.Timer(0.3, publish)
    ending.start()
    assert AsyncResult("t").get(timeout=30, interval=20) == 1
    assert time.monotonic() - published[0] < 5
    ending.join()


def test_a_wait_gives_up_after_its_timeout(store: ResultStore) -> None:
    begun = time.monotonic()
    with pytest.raises(exceptions.TimeoutError, match=r"within 0\.2 s"):
        AsyncResult("t").get(timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < 2


def test_a_success_is_never_overwritten(store: ResultStore) -> None:
    """Neither by a run that ends later nor by one that begins; an error is, by what comes after it."""
    assert store.put(meta_of("t", "FAILURE", write_error(ValueError("x"))))
    assert store.put(meta_of("t", "SUCCESS", 1))
    for later in (meta_of("t", "FAILURE"), meta_of("t", "STARTED"), meta_of("t", "SUCCESS", 2)):
        assert not store.put(later)
    assert AsyncResult("t").result == 1


def test_a_result_is_kept_for_its_time_and_can_be_forgotten(settings: Settings, store: ResultStore) -> None:
    client: Any = redis.Redis.from_url(settings.events_url)
    store.put(meta_of("a", "SUCCESS", 1))
    with closing(ResultStore(settings.model_copy(update={"result_ttl_s": 0}))) as for_ever:
        for_ever.put(meta_of("b", "SUCCESS", 1))
    assert 86000 < client.ttl("celery-task-meta-a") <= 86400
    assert client.ttl("celery-task-meta-b") == -1
    client.close()
    result = AsyncResult("a")
    assert result.get(timeout=1) == 1
    result.forget()
    assert result.state == "PENDING"


def test_an_operators_word_on_how_long_goes_before_an_apps(
    settings: Settings, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_RESULT_TTL_S", "60")
    forget()
    kept = {"task_always_eager": True, "task_store_eager_result": True, "result_expires": 3600}
    result = Celery("shop", set_as_current=False, **kept).task(name="shop.one")(lambda: 1).delay()
    client: Any = redis.Redis.from_url(settings.events_url)
    assert 0 < client.ttl(f"celery-task-meta-{result.id}") <= 60
    client.close()


def test_what_json_cannot_carry_is_not_kept(store: ResultStore) -> None:
    with pytest.raises(TypeError, match="object"):
        store.put(meta_of("t", "SUCCESS", object()))
    assert AsyncResult("t").state == "PENDING"

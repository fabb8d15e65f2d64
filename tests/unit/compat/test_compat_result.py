"""`AsyncResult`: what a task's row says, in Celery's words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dream.compat import AsyncResult, exceptions
from dream.db import Database, tasks
from dream.db.tasks import Claim
from dream.errors import DatabaseUnavailable
from dream.messages import CLEANUP_TOKENS, TaskState


def claimed(database: Database) -> Claim:
    with database.begin() as session:
        tasks.add(session, "t", CLEANUP_TOKENS, [])
        session.flush()
        claim = tasks.claim(session, "t", 60)
    assert claim is not None
    return claim


def end(database: Database, claim: Claim, state: TaskState, **outcome: Any) -> None:
    with database.begin() as session:
        tasks.finish(session, claim, state, **outcome)


def test_a_task_that_nobody_knows_is_pending(database: Database) -> None:
    """As in Celery: a caller may look before the sender has committed."""
    result = AsyncResult("nobody")
    assert (result.state, result.status, result.result, result.ready()) == ("PENDING", "PENDING", None, False)


def test_a_waiting_task_is_pending_and_a_running_one_started(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "waiting", CLEANUP_TOKENS, [])
    claimed(database)
    assert (AsyncResult("waiting").state, AsyncResult("t").state) == ("PENDING", "STARTED")


def test_a_task_between_two_runs_is_in_retry(database: Database) -> None:
    claim = claimed(database)
    with database.begin() as session:
        tasks.retry_later(session, claim, "not now", 60)
    assert AsyncResult("t").state == "RETRY"


def test_success_gives_the_result(database: Database) -> None:
    end(database, claimed(database), TaskState.SUCCEEDED, result=["url"])
    result = AsyncResult("t")
    assert (result.state, result.result, result.get(timeout=0)) == ("SUCCESS", ["url"], ["url"])
    assert result.ready()
    assert result.successful()
    assert not result.failed()


def test_failure_raises_its_error_or_gives_it(database: Database) -> None:
    end(database, claimed(database), TaskState.FAILED, error="no picture")
    result = AsyncResult("t")
    assert (result.state, result.failed(), str(result.result)) == ("FAILURE", True, "no picture")
    with pytest.raises(exceptions.TaskError, match="no picture"):
        result.get(timeout=5)
    assert isinstance(result.get(timeout=5, propagate=False), exceptions.TaskError)


def test_get_gives_up_after_its_timeout(database: Database) -> None:
    claimed(database)
    begun = time.monotonic()
    with pytest.raises(exceptions.TimeoutError, match=r"within 0\.3 s"):
        AsyncResult("t").get(timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 2


def test_get_returns_once_the_task_has_ended(database: Database) -> None:
    claim = claimed(database)
    ending = threading.Timer(0.2, end, (database, claim, TaskState.SUCCEEDED), {"result": 3})
    ending.start()
    assert AsyncResult("t").get(timeout=10) == 3
    ending.join()


def test_a_database_that_cannot_be_read_is_said(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE dream_images")
        connection.exec_driver_sql("DROP TABLE dream_tasks")
    with pytest.raises(DatabaseUnavailable):
        AsyncResult("t").ready()


def test_results_of_one_task_are_equal() -> None:
    assert AsyncResult("a") == AsyncResult("a") != AsyncResult("b")
    assert len({AsyncResult("a"), AsyncResult("a")}) == 1
    assert str(AsyncResult("a")) == AsyncResult("a").task_id == "a"


@pytest.mark.parametrize("make", [lambda: AsyncResult(""), lambda: AsyncResult(None)])
def test_a_result_needs_an_id(make: Callable[[], AsyncResult]) -> None:
    with pytest.raises(ValueError, match="needs the id"):
        make()

"""`AsyncResult` while Redis is away: what a task's row says, in Celery's words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dream.compat import AsyncResult, exceptions
from dream.compat.result import EagerResult, allow_join_result, denied_join_result, result_from_tuple
from dream.db import Database, tasks
from dream.db.tasks import Claim
from dream.errors import DatabaseUnavailable, ImageRejected, ResultsUnavailable
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import Failure, TaskState


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


def test_a_waiting_task_is_pending_and_a_running_one_started(database: Database) -> None:
    with database.begin() as session:
        tasks.add(session, "waiting", CLEANUP_TOKENS, [])
    claimed(database)
    assert (AsyncResult("waiting").state, AsyncResult("t").state) == ("PENDING", "STARTED")


def test_a_task_between_two_runs_is_in_retry(database: Database) -> None:
    claim = claimed(database)
    with database.begin() as session:
        tasks.retry_later(session, claim, Failure("not now"), 60)
    assert AsyncResult("t").state == "RETRY"


def test_success_gives_the_result(database: Database) -> None:
    end(database, claimed(database), TaskState.SUCCEEDED, result=["url"])
    result = AsyncResult("t")
    assert (result.state, result.result, result.get(timeout=0)) == ("SUCCESS", ["url"], ["url"])
    assert result.ready()
    assert result.successful()
    assert not result.failed()


def test_failure_raises_its_error_or_gives_it(database: Database) -> None:
    end(database, claimed(database), TaskState.FAILED, failure=Failure("no picture"))
    result = AsyncResult("t")
    assert (result.state, result.failed(), str(result.result)) == ("FAILURE", True, "no picture")
    with pytest.raises(exceptions.TaskError, match="no picture"):
        result.get(timeout=5)
    assert isinstance(result.get(timeout=5, propagate=False), exceptions.TaskError)


def test_the_error_is_of_its_own_class_where_the_row_names_one(database: Database) -> None:
    named = Failure("it is a text", "dream.errors:ImageRejected")
    end(database, claimed(database), TaskState.FAILED, failure=named)
    with pytest.raises(ImageRejected, match="it is a text"):
        AsyncResult("t").get(timeout=5)


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
    """Its tables are older than this release, here."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE dream_tasks DROP COLUMN error_class")
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


def test_what_neither_redis_nor_a_row_can_say_is_an_error(database: Database) -> None:
    """Redis is away: whether it had a result of such a task cannot be known."""
    with pytest.raises(ResultsUnavailable):
        _ = AsyncResult("nobody").state


def test_nobody_waits_for_a_result_inside_a_task(database: Database) -> None:
    end(database, claimed(database), TaskState.SUCCEEDED, result=1)
    with denied_join_result():
        with pytest.raises(RuntimeError, match="within a task"):
            AsyncResult("t").get(timeout=1)
        assert AsyncResult("t").get(timeout=1, disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert AsyncResult("t").get(timeout=1) == 1
    assert AsyncResult("t").get(timeout=1) == 1


def test_an_eager_result_has_ended() -> None:
    assert EagerResult("t", 3, "SUCCESS").get() == 3
    failed = EagerResult("t", ValueError("x"), "FAILURE", "Traceback …")
    assert (failed.state, failed.failed(), failed.traceback) == ("FAILURE", True, "Traceback …")
    with pytest.raises(ValueError, match="x"):
        failed.get()


def test_an_eager_result_that_is_revoked_has_no_other_end() -> None:
    revoked = EagerResult("t", ValueError("x"), "FAILURE", "Traceback …")
    revoked.revoke()
    assert (revoked.state, revoked.traceback) == ("REVOKED", None)
    with pytest.raises(exceptions.TaskRevokedError, match="revoked"):
        revoked.get()


def test_a_result_is_written_with_the_one_that_sent_it() -> None:
    child = AsyncResult("child", parent=AsyncResult("parent"))
    read = result_from_tuple(child.as_tuple())
    assert (read, read.parent) == (child, child.parent)

"""The clean-up of tokens by real workers: a run that is cut off goes on where it left off; its result is the sum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select

from dream.db import DreamTask, RevokedToken
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import TaskState
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts, measure_import_s

EXPIRED = 20_000
#: No machine deletes so many within the time limit of the test.
MORE_THAN_ONE_RUN = 100_000


def add_tokens(system: System, count: int, prefix: str, expires_at: datetime) -> None:
    with system.database.begin() as session:
        session.execute(insert(RevokedToken), [{"jti": f"{prefix}{i}", "expires_at": expires_at} for i in range(count)])


def tokens_left(system: System) -> int:
    with system.database.read() as session:
        return session.scalar(select(func.count()).select_from(RevokedToken)) or 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_runs_that_are_cut_off_and_a_worker_that_dies_delete_each_token_once(parts: Parts, system: System) -> None:
    clock = datetime.now(UTC)
    add_tokens(system, MORE_THAN_ONE_RUN, "old", clock - timedelta(days=1))
    add_tokens(system, 100, "new", clock + timedelta(days=1))
    system.producer.submit(CLEANUP_TOKENS, [], task_id="clean-up")
    quick = {
        # Shorter than the work, and longer than a batch, on a machine as quick as this one is just now.
        "DREAM_TIME_LIMIT_S": f"{max(0.3, measure_import_s() / 2):.2f}",
        "DREAM_LEASE_S": "2",
        "DREAM_LEASE_RENEW_S": "0.5",
        # On a machine that is very busy a run may end before its first batch: then it waits as long each time.
        "DREAM_RETRY_FIRST_S": "0.5",
        "DREAM_RETRY_FACTOR": "1",
        "DREAM_MAX_RETRIES": "1000",
    }
    killed = parts.start("worker", **quick)

    def is_under_way() -> bool:
        return 0 < (system.task("clean-up").result or 0) < MORE_THAN_ONE_RUN

    wait_for(is_under_way, what="the first batches")
    parts.kill(killed)
    so_far = system.task("clean-up")
    assert not so_far.state.is_terminal
    assert so_far.result == MORE_THAN_ONE_RUN + 100 - tokens_left(system)
    worker = parts.start("worker", **quick)
    task = system.await_end("clean-up", timeout_s=180)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, MORE_THAN_ONE_RUN)
    assert tokens_left(system) == 100
    said = parts.log_of(killed) + parts.log_of(worker)
    # Cut off by the flow itself; on a machine that is very busy by the limit behind it.
    assert "task_handed_back" in said or "task_will_retry" in said


@pytest.mark.slow
def test_two_clean_ups_at_once_do_no_harm(parts: Parts, system: System) -> None:
    add_tokens(system, EXPIRED, "old", datetime.now(UTC) - timedelta(days=1))
    for name in ("one", "other"):
        system.producer.submit(CLEANUP_TOKENS, [], task_id=name)
    parts.start("worker", DREAM_WORKER_THREADS="2")
    ended: list[DreamTask] = [system.await_end(name) for name in ("one", "other")]
    assert [task.state for task in ended] == [TaskState.SUCCEEDED] * 2
    assert sum(task.result or 0 for task in ended) == EXPIRED
    assert tokens_left(system) == 0

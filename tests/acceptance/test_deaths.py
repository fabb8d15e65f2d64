"""Workers that die: what they had in work runs again soon, and what killed them does not kill for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import select

from dream.db import DreamTask
from dream.messages.states import TaskState
from dream.settings import Settings
from tests import promise
from tests.acceptance.conftest import System
from tests.commands import dream
from tests.conftest import wait_for
from tests.processes import Parts

#: A quarter of the default clocks.
QUARTER = {"DREAM_LEASE_S": "3", "DREAM_LEASE_RENEW_S": "1", "DREAM_HEARTBEAT_S": "3.75"}
QUICK = {"DREAM_LEASE_S": "1", "DREAM_LEASE_RENEW_S": "0.4", "DREAM_HEARTBEAT_S": "1"}
POISON, INNOCENTS = 666, (1, 2, 3)


@pytest.mark.slow
def test_a_poison_is_stopped_at_its_third_death_and_its_neighbours_are_done(
    parts: Parts, system: System, environment: dict[str, str], tmp_path: Path, jpeg: bytes
) -> None:
    """Three tasks ran beside it when it killed their worker, twice: they are done. Its owner hears `failed` once."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    picture = [{"name": "a.jpg", "data": jpeg}]
    poison, *innocents = [system.producer.upload_images(each, picture, [0]) for each in (POISON, *INNOCENTS)]
    program = ("-m", "tests.acceptance.poisoned_worker", str(POISON), str(len(INNOCENTS)), str(deaths))
    parts.start(program=program, ready=False, **QUICK)
    task = system.await_end(poison)
    assert (task.state, task.deaths, len(list(deaths.iterdir()))) == (TaskState.FAILED, 3, 3)
    assert task.error == "its worker died 3 times while working on it"
    for each in innocents:
        done = system.await_end(each)
        assert (done.state, done.deaths, done.attempts) == (TaskState.SUCCEEDED, 2, 0)
    assert [event["status"] for event in system.events(POISON)].count("failed") == 1
    [dead_letter] = dream(environment, "dlq", "list").stdout.splitlines()
    assert dead_letter.startswith(poison)
    assert promise.check(environment, [poison, *innocents]).broken == []


@pytest.mark.slow
def test_what_a_killed_worker_had_in_work_runs_again_within_20_s(parts: Parts, system: System, jpeg: bytes) -> None:
    """All of it, side by side, by another worker; here with all clocks at a quarter, and within a quarter of 20 s."""
    stuck = {**QUARTER, "DREAM_FAULT": "begin:after=hang"}  # in work until its worker dies
    for each in (1, 2, 3, 4):
        system.producer.upload_images(each, [{"name": "a.jpg", "data": jpeg}], [0])
    first = parts.start("worker", **stuck)
    wait_for(lambda: in_work(system) == (4, 0), what="four runs")
    second = parts.start("worker", **stuck)
    parts.kill(first)
    killed_at = time.monotonic()
    wait_for(lambda: in_work(system) == (4, 4), what="four more runs")
    assert time.monotonic() - killed_at < 20 / 4
    parts.kill(second)


def test_the_default_clocks_bring_a_killed_workers_tasks_back_within_20_s() -> None:
    """The lease must be over and the broker must have noticed, which a worker that polls sees at once."""
    settings = Settings()
    assert max(settings.lease_s, settings.heartbeat_s) + settings.worker_poll_ms / 1000 < 17


def in_work(system: System) -> tuple[int, int]:
    """The number of tasks in work, and the number of their deaths."""
    with system.database.read() as session:
        deaths = session.scalars(select(DreamTask.deaths).where(DreamTask.state == TaskState.RUNNING)).all()
    return len(deaths), sum(deaths)

"""`dream top`: one view with everything in it, a live one on a terminal, and one while servers are away."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
import redis

from dream.db import DreamTask
from dream.producer import Producer
from dream.settings import Settings
from dream.version import __version__
from dream.work.presence import services_there
from dream.work.running import running
from tests.commands import dream, on_a_terminal
from tests.conftest import wait_for
from tests.pictures import noise
from tests.processes import Parts

Environment = dict[str, str]


@pytest.fixture
def environment(environment: Environment) -> Environment:
    return {**environment, "COLUMNS": "80"}


def _state(producer: Producer, task_id: str) -> str:
    with producer.database.read() as session:
        task = session.get(DreamTask, task_id)
    return str(task.state) if task else "none"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_view_has_queues_tasks_processes_runs_and_failures_in_80_columns(
    environment: Environment, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    producer = Producer(settings)
    try:
        worker = parts.start("worker", DREAM_WORKER_NAME="w1@host")
        parts.start("scheduler")
        parts.start("gateway")
        wait_for(lambda: len(services_there(settings)) == 2, what="the scheduler and the gateway")
        dead = producer.upload_images(7, [{"name": "a.txt", "data": b"no picture"}])
        wait_for(lambda: _state(producer, dead) == "failed", 60, "the failed task")
        slow = noise(5000, 4000)
        running = producer.upload_images(7, [{"name": f"{number}.jpg", "data": slow} for number in range(20)])
        wait_for(lambda: _state(producer, running) == "running", 60, "the start of the run")
        seen = dream(environment, "top").stdout
        parts.kill(worker)
        after = dream(environment, "top", "--once")
    finally:
        producer.close()
        parts.end()

    for kind, name in (("worker", "w1@host"), ("scheduler", r"\S+:\d+"), ("gateway", r"\S+:\d+")):
        assert re.search(rf"^{kind} +{re.escape(__version__)} +{name} *$", seen, re.M), seen
    assert re.search(r"^default +0 +0 +0 +0s *$", seen, re.M), seen
    assert re.search(r"^ *\d+s +process_and_upload_images +[0-9a-f-]+", seen, re.M), seen
    assert re.search(r"\d\d:\d\d +process_and_upload_images +\S", seen), seen
    assert max(map(len, seen.splitlines())) <= 80
    assert re.search(r"^worker +- +none runs", after.stdout, re.M), after.stdout
    assert after.returncode == 0


def test_servers_that_are_away_are_lines_and_no_crash(environment: Environment, settings: Settings) -> None:
    away = {
        "DREAM_BROKER_URL": "redis://:hunter2hunter2@127.0.0.1:9/0",
        "DREAM_REDIS_URL": "",
        "DREAM_DATABASE_URL": "postgresql://somebody:hunter2hunter2@127.0.0.1:9/dream",
    }
    run = dream(environment, "top", "--once", **away)
    assert (run.returncode, run.stderr) == (0, "")
    for source in ("broker", "database", "Redis"):
        assert f"{source} is away: " in run.stdout
    assert "hunter2" not in run.stdout

    partly = dream(environment, "top", "--once", DREAM_DATABASE_URL=away["DREAM_DATABASE_URL"])
    assert "database is away: " in partly.stdout
    assert re.search(r"^default +0 +0 +\? +\? *$", partly.stdout, re.M), partly.stdout


def test_the_live_view_ends_at_ctrl_c(environment: Environment, settings: Settings) -> None:
    with redis.Redis.from_url(settings.events_url) as client:
        clock = client.time()[0]
        client.zadd(f"{settings.redis_prefix}:parts", {f"gateway@web\x1b[31m:7 {__version__}": clock})
    code, shown = on_a_terminal(
        environment, "\x03", "top", "--every", "0.5", columns=80, after="nothing runs now", asks=False
    )
    assert code == 130
    assert "Traceback" not in shown
    assert "web?[31m:7" in shown  # a name from Redis cannot colour the terminal


def test_a_container_that_was_upgraded_is_there_twice_until_its_old_name_expires(settings: Settings) -> None:
    """A service in a container with a fixed host name is process 1 before and after."""
    with closing(redis.Redis.from_url(settings.events_url)) as client:
        now_s = client.time()[0]
        members = {"gateway@web:1": now_s, f"gateway@web:1 {__version__}": now_s}
        client.zadd(f"{settings.redis_prefix}:parts", members)
    assert running(settings, {}) == [("gateway", "web:1", None), ("gateway", "web:1", __version__)]

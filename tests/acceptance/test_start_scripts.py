"""`python dream/celery/worker.py` and `beat.py`: the documented commands, as real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import dream
from dream.messages.registry import CLEANUP_TOKENS
from dream.messages.states import TaskState
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import BEAT, WORKER, Parts

ROOT = Path(dream.__file__).resolve().parents[1]


@pytest.fixture
def parts(parts_anew: Parts) -> Parts:
    return parts_anew


@pytest.mark.slow
def test_the_worker_needs_no_arguments_and_runs_from_any_folder(
    parts: Parts, system: System, jpeg: bytes, tmp_path: Path
) -> None:
    """Four threads and both queues; its pool's processes start too, though they run the script again."""
    worker = parts.start(program=[str(WORKER)], cwd=tmp_path)
    upload = system.producer.upload_images(7, [{"name": "a.jpg", "data": jpeg}])
    assert system.producer.submit(CLEANUP_TOKENS, [], task_id="cleanup")
    assert system.await_end(upload).state is TaskState.SUCCEEDED
    assert system.await_end("cleanup").result == 0
    assert '"threads": 4' in parts.log_of(worker)
    assert '"level": "debug"' not in parts.log_of(worker)
    assert parts.stop(worker) == 0


@pytest.mark.slow
def test_the_worker_takes_celerys_arguments_from_the_checkouts_root(parts: Parts, system: System, jpeg: bytes) -> None:
    """A worker of one queue leaves the other alone."""
    options = "worker --pool=threads -Q default --loglevel=debug --concurrency=2 -n w1@%h"
    worker = parts.start(*options.split(), program=["dream/celery/worker.py"], cwd=ROOT)
    upload = system.producer.upload_images(7, [{"name": "a.jpg", "data": jpeg}])
    assert system.producer.submit(CLEANUP_TOKENS, [], task_id="cleanup")
    assert system.await_end("cleanup").result == 0
    assert system.task(upload).state is TaskState.QUEUED
    assert '"threads": 2' in parts.log_of(worker)
    assert f'"name": "w1@{socket.gethostname()}"' in parts.log_of(worker)
    assert parts.stop(worker) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "from_root"), [((), False), (("beat", "--loglevel=info"), True)], ids=["bare", "with arguments"]
)
def test_beat_keeps_the_timetable_until_it_is_told_to_stop(
    parts: Parts, system: System, tmp_path: Path, arguments: tuple[str, ...], from_root: bool
) -> None:
    program, cwd = ("dream/celery/beat.py", ROOT) if from_root else (str(BEAT), tmp_path)
    beat = parts.start(*arguments, program=[program], cwd=cwd)
    assert "scheduler_ready" in parts.log_of(beat)
    assert parts.stop(beat) == 0


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        (WORKER, ["--pool=prefork"], "--pool=prefork"),
        (WORKER, ["worker", "--max-tasks-per-child=10"], "--max-tasks-per-child"),
        (BEAT, ["beat", "--scheduler=other"], "--scheduler"),
    ],
)
def test_an_argument_without_counterpart_is_refused_in_one_line(script: Path, arguments: list[str], said: str) -> None:
    answer = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=30)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "script", [(WORKER,), (BEAT,), ("-c", "import dream.actors")], ids=["worker", "beat", "actors"]
)
def test_a_wrong_setting_is_one_line(script: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Also where `dramatiq dream.actors` imports them."""
    environment = {**os.environ, "DREAM_WORKER_THREADS": "many"}
    answer = subprocess.run([sys.executable, *script], env=environment, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 2
    assert "DREAM_WORKER_THREADS='many'" in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.slow
def test_dramatiqs_own_command_runs_and_logs_as_ours_does(parts: Parts, system: System) -> None:
    """`dramatiq dream.actors`: logging is set up by the worker that starts, not by the import."""
    worker = parts.start("dream.actors", "-p", "1", "-t", "1", program=["-m", "dramatiq"], ready=False)
    assert system.producer.submit(CLEANUP_TOKENS, [], task_id="cleanup")
    assert system.await_end("cleanup").result == 0
    wait_for(lambda: '"event": "task_succeeded"' in parts.log_of(worker), what="the worker's line")
    assert parts.stop(worker) == 0

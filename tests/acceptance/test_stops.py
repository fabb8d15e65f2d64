"""SIGTERM in the middle of a start: no part misses it, and no part waits for what has not started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dream.messages.states import TaskState
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.processes import Parts

pytestmark = pytest.mark.slow

#: A library that never ends its import.
HANGING = "import pathlib, time\npathlib.Path(__file__).with_suffix('.seen').touch()\ntime.sleep(600)\n"
#: A library whose import signals its process, and which then gives way to the real one.
SIGNALLING = """
import os, pathlib, signal, sys
pathlib.Path(__file__).with_suffix(".seen").touch()
os.kill(os.getpid(), signal.SIGTERM)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["uvloop"]
import uvloop
"""


def test_a_worker_hands_back_a_picture_that_waits_for_the_pool(
    parts: Parts, system: System, jpeg: bytes, tmp_path: Path
) -> None:
    """Its children never finish their imports; it has 30 s for its stop and needs none of them."""
    seen = _library(tmp_path, "simplejpeg", HANGING)
    worker = parts.start("worker", PYTHONPATH=str(tmp_path), DREAM_SHUTDOWN_TIMEOUT_S="30")
    task_id = system.producer.upload_images(7, [{"name": "a.jpg", "data": jpeg}], [0])
    wait_for(lambda: seen.exists() and system.task(task_id).state is TaskState.RUNNING, what="the run")
    began = time.monotonic()
    assert parts.stop(worker) == 0
    assert time.monotonic() - began < 10
    task = system.task(task_id)
    assert (task.state, task.attempts, task.deaths) == (TaskState.QUEUED, 0, 0)
    parts.start("worker")
    assert system.await_end(task_id).state is TaskState.SUCCEEDED


def test_a_gateway_ends_that_is_signalled_before_it_serves(parts: Parts, tmp_path: Path) -> None:
    """uvicorn has no handlers yet when it imports its loop; the gateway served on before."""
    seen = _library(tmp_path, "uvloop", SIGNALLING)
    gateway = parts.start("gateway", ready=False, PYTHONPATH=str(tmp_path), DREAM_PORT="0")
    wait_for(lambda: seen.exists() or gateway.poll() is not None, what="the import")
    assert gateway.wait(10) == 0
    assert "gateway_stopped" in parts.log_of(gateway)


@pytest.mark.parametrize(("part", "code"), [("worker", 0), ("scheduler", 143), ("gateway", 143)])
def test_the_first_process_of_a_container_ends_while_it_imports(
    part: str, code: int, environment: dict[str, str], tmp_path: Path
) -> None:
    """The kernel drops a SIGTERM that process 1 has no handler for."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make a PID namespace")
    seen = _library(tmp_path, "sqlalchemy", HANGING)
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "dream", part]
    own = {**os.environ, **environment, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=own) as outside:
        try:
            wait_for(lambda: seen.exists() or outside.poll() is not None, what="the import")
            (first,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert outside.wait(10) == code
        finally:
            outside.kill()


def _library(folder: Path, name: str, source: str) -> Path:
    """Put a library of that name before the real one; returns the file that its import leaves."""
    (folder / f"{name}.py").write_text(source)
    return folder / f"{name}.seen"

"""Parts of dream as real processes, started by tests and gone after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import dream
from tests.conftest import wait_for
from tests.preloaded import MARK, Preloaded, can_be_forked, has_name_of

__all__ = ["BEAT", "MARK", "WORKER", "Parts", "Process", "measure_import_s", "processes_with"]

#: The documented start scripts.
WORKER, BEAT = (Path(dream.__file__).parent / "celery" / name for name in ("worker.py", "beat.py"))


class Process(Protocol):
    """The calls of tests on a process, as `subprocess.Popen` names them."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Parts:
    """Starts `dream worker`, `dream scheduler` and the like; ends what it started.

    Parameters:
      environment: the `DREAM_…` variables that the parts run with.
      folder: for their logs and ready files.
      anew: each with an interpreter of its own, as operators start them; else most are forked (`tests/preloaded.py`).
    """

    def __init__(self, environment: Mapping[str, str], folder: Path, *, anew: bool = False) -> None:
        self._mark = uuid4().hex
        self._environment = {**os.environ, **environment, MARK: self._mark, "DREAM_LOG_FORMAT": "json"}
        self._folder = folder
        self._anew = anew
        self._processes: list[Process] = []

    def start(
        self,
        *command: str,
        ready: bool = True,
        program: Sequence[str] = ("-m", "dream"),
        cwd: Path | None = None,
        **changes: str,
    ) -> Process:
        """Start `python -m dream COMMAND…`; waits until it takes work.

        Parameters:
          program: what Python runs instead of `-m dream`.
          cwd: the folder it starts in.
          changes: more environment variables.
        """
        number = len(self._processes)
        ready_file = self._folder / f"ready-{number}"
        environment = {**self._environment, **changes, "DREAM_READY_FILE": str(ready_file)}
        name = " ".join([Path(program[-1]).stem, *command])
        log = self._folder / f"{number}-{Path(program[-1]).stem}.log"
        process = self._launch([*program, *command], environment, cwd, log)
        self._processes.append(process)
        if ready:
            wait_for(lambda: ready_file.exists() or process.poll() is not None, 60, f"readiness of {name}")
            assert ready_file.exists(), self.log_of(process)
        return process

    def _launch(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path | None, output: Path) -> Process:
        if not self._anew and can_be_forked(argv, environment):
            return Preloaded(argv, environment, output, cwd=cwd)
        with output.open("wb") as log:
            return subprocess.Popen([sys.executable, *argv], env=environment, cwd=cwd, stdout=log, stderr=log)

    def log_of(self, process: Process) -> str:
        """The output of the part."""
        number = self._processes.index(process)
        return next(self._folder.glob(f"{number}-*.log")).read_text()

    def stop(self, process: Process, timeout_s: float = 15) -> int:
        """SIGTERM, and the exit code."""
        process.terminate()
        return process.wait(timeout_s)

    def kill(self, process: Process) -> None:
        """kill -9; its children must go by themselves."""
        process.kill()
        process.wait(10)

    def end(self) -> None:
        """End what still runs; nothing may stay."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        wait_for(lambda: not self.running(), timeout_s=10, what="the end of every process")

    def running(self) -> list[int]:
        """The processes of this test that are there."""
        return processes_with(self._mark)


def processes_with(mark: str) -> list[int]:
    """Processes that were started with the mark in their environment, or are named after it, zombies excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                is_named = has_name_of(mark, (entry / "comm").read_text().strip())
                if (is_named and _state_of(entry) != "Z") or mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _state_of(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def measure_import_s() -> float:
    """Seconds that a new Python needs to import the large libraries, as a measure of the machine's speed."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import boto3, dramatiq, sqlalchemy.orm"], check=True)
    return time.monotonic() - began

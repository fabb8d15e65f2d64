"""Parts of dream as real processes, started by tests and gone after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import dream
from tests.conftest import wait_for

__all__ = ["BEAT", "MARK", "WORKER", "Parts", "Process", "name_after", "processes_with"]

#: The documented start scripts.
WORKER, BEAT = (Path(dream.__file__).parent / "celery" / name for name in ("worker.py", "beat.py"))
#: Every process that a test starts, and every child of it, carries this variable.
MARK = "DREAM_TEST_MARK"


class Process(Protocol):
    """What tests do with a process, as `subprocess.Popen` names it."""

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
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._mark = uuid4().hex
        self._environment = {**os.environ, **environment, MARK: self._mark, "DREAM_LOG_FORMAT": "json"}
        self._folder = folder
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
            wait_for(lambda: ready_file.exists() or process.poll() is not None, what=f"readiness of {name}")
            assert ready_file.exists(), self.log_of(process)
        return process

    def _launch(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path | None, output: Path) -> Process:
        with output.open("wb") as log:
            return subprocess.Popen([sys.executable, *argv], env=environment, cwd=cwd, stdout=log, stderr=log)

    def log_of(self, process: Process) -> str:
        """What the part wrote."""
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


def name_after(mark: str) -> None:
    """Let `processes_with(mark)` find this process, and those forked from it, by name.

    What a process shows of its environment is what its ancestor was started with.
    """
    Path("/proc/self/comm").write_text(_name_of(mark))


def processes_with(mark: str) -> list[int]:
    """Processes that were started with the mark in their environment, or are named after it, zombies excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                is_named = (entry / "comm").read_text().strip() == _name_of(mark)
                if (is_named and _state_of(entry) != "Z") or mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _name_of(mark: str) -> str:
    return mark[:15]  # the kernel keeps no more


def _state_of(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]

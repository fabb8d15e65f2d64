"""Parts of dream as real processes, started by tests and gone after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from tests.conftest import wait_for

__all__ = ["Parts", "processes_with"]

#: Every process that a test starts, and every child of it, carries this variable.
MARK = "DREAM_TEST_MARK"


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
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *command: str,
        ready: bool = True,
        program: Sequence[str] = ("-m", "dream"),
        cwd: Path | None = None,
        **changes: str,
    ) -> subprocess.Popen[bytes]:
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
        with (self._folder / f"{number}-{Path(program[-1]).stem}.log").open("wb") as log:
            argv = [sys.executable, *program, *command]
            process = subprocess.Popen(argv, env=environment, cwd=cwd, stdout=log, stderr=log)
        self._processes.append(process)
        if ready:
            wait_for(lambda: ready_file.exists() or process.poll() is not None, what=f"readiness of {name}")
            assert ready_file.exists(), self.log_of(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        """What the part wrote."""
        number = self._processes.index(process)
        return next(self._folder.glob(f"{number}-*.log")).read_text()

    def stop(self, process: subprocess.Popen[bytes], timeout_s: float = 15) -> int:
        """SIGTERM, and the exit code."""
        process.terminate()
        return process.wait(timeout_s)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
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


def processes_with(text: str) -> list[int]:
    """Processes whose environment holds the text, zombies excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found

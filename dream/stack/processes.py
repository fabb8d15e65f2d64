"""One child process: started so that it dies with us, its output in a file, stopped by SIGTERM and then SIGKILL."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dream.errors import StackError
from dream.stack.logs import rotate
from dream.tether import tethered

__all__ = ["Part", "Process", "describe_exit", "stop_all"]

log = logging.getLogger(__name__)

_POLL_S = 0.02
#: A longer pause between two looks says that it was we who hung.
_LONGEST_LOOK_S = 1.0


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part of the stack is, before it runs.

    Parameters:
      name: how people and log files call it.
      argv: the program and its arguments.
      env: its whole environment.
      cwd: its working folder.
      log: the file that takes its output, appended.
      is_ready: whether it answers; asked again and again, never blocks for more than a second.
      ready_file: a file that it creates once it takes work; removed before each start.
      life_timeout_s: how long its ready file may stay untouched before it counts as hung and is killed; 0 means that it
        shows no life there.
      answers: called in a thread before that kill; a part that answers is busy, and is left alone.
      stop_timeout_s: time between SIGTERM and SIGKILL.
      is_ours: whether its lines are also shown on our own standard error.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    is_ready: Callable[[], bool] = _always
    ready_file: Path | None = None
    life_timeout_s: float = 0.0
    answers: Callable[[], bool] | None = None
    stop_timeout_s: float = 3.0
    is_ours: bool = False


class Process:
    """A part that runs.

    Parameters:
      part: what to run.
      keep_open: file descriptors that the child shares, such as the data folder's lock.

    Raises:
      StackError: the program cannot be run, or this is not the main thread (the child would die with the thread).
    """

    def __init__(self, part: Part, *, keep_open: Sequence[int] = ()) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise StackError(f"{part.name} can only be started from the main thread")
        if part.ready_file is not None:
            part.ready_file.unlink(missing_ok=True)
        rotate(part.log)
        self.part = part
        self.started_at = time.monotonic()
        self._pulse = _Pulse()
        self._question: _Question | None = None
        try:
            with part.log.open("ab") as log:
                # A session of its own: a Ctrl-C in the terminal is ours to handle, in our order.
                self._popen = subprocess.Popen(
                    tethered(list(part.argv)),
                    env=dict(part.env),
                    cwd=part.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=tuple(keep_open),
                    start_new_session=True,
                )
        except OSError as error:
            raise StackError(f"{part.name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self.started_at

    def is_hung(self) -> bool:
        """Whether it has shown life before, does no more, and does not answer either."""
        part = self.part
        if part.ready_file is None or not part.life_timeout_s:
            return False
        if self._pulse.silent_s(part.ready_file) <= part.life_timeout_s:
            self._question = None
            return False
        if part.answers is None:
            return True
        if self._question is None:
            self._question = _Question(part.answers)
        if self._question.answer:
            log.warning("%s shows no life, but it answers; it is left alone", part.name)
            self._pulse, self._question = _Pulse(), None
            return False
        return self._question.answer is False

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._popen.poll()

    def terminate(self) -> None:
        self._popen.terminate()

    def kill(self) -> None:
        self._popen.kill()

    def reap(self, timeout_s: float = 5.0) -> int:
        """Wait for its end.

        Raises:
          StackError: it has not ended in time.
        """
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StackError(f"{self.part.name} (process {self.pid}) does not end") from None


class _Question:
    """A call in a thread of its own, because the answer may take long.

    Parameters:
      ask: returns the answer.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        #: None until the call returns.
        self.answer: bool | None = None
        threading.Thread(target=self._run, args=(ask,), daemon=True).start()

    def _run(self, ask: Callable[[], bool]) -> None:
        self.answer = ask()


class _Pulse:
    """How long a file has not been touched, by the time in which we looked: where we were stopped, so were others."""

    def __init__(self) -> None:
        self._touched_ns = 0
        self._looked_at = 0.0
        self._silent_s = 0.0

    def silent_s(self, path: Path) -> float:
        """Look at the file; 0 where it is not there (yet)."""
        now = time.monotonic()
        try:
            touched_ns = path.stat().st_mtime_ns
        except OSError:
            touched_ns = 0
        if touched_ns != self._touched_ns or not touched_ns:
            self._silent_s = 0.0
        else:
            self._silent_s += min(now - self._looked_at, _LONGEST_LOOK_S)
        self._touched_ns, self._looked_at = touched_ns, now
        return self._silent_s


def stop_all(processes: Sequence[Process], *, is_hurried: Callable[[], bool] = lambda: False) -> None:
    """SIGTERM to each in this order, SIGKILL to each that outlives its time, and wait for all.

    Parameters:
      is_hurried: true means that nobody wants to wait any more: SIGKILL at once.
    """
    for process in processes:
        process.terminate()
    begun = time.monotonic()
    left = [process for process in processes if process.exit_code() is None]
    while left:
        waited_s = time.monotonic() - begun
        for process in left:
            if is_hurried() or waited_s >= process.part.stop_timeout_s:
                process.kill()
                process.reap()
        left = [process for process in left if process.exit_code() is None]
        if left:
            time.sleep(_POLL_S)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"

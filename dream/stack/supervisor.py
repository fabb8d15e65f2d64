"""Start the programs of a stack, restart each that dies, and stop them in order.

A child process dies with its parent; its output goes to a file; SIGTERM stops it, and later SIGKILL. The supervisor has
one thread and no locks: signals only set marks, and `step()` looks at everything ten times a second.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dream.errors import SettingsError, StackError
from dream.stack.logs import last_line, rotate, rotate_open
from dream.work.back_off import BackOff
from dream.work.process import EXIT_SETTINGS, SAME_SIGNAL_S, describe_exit
from dream.work.tether import tethered

__all__ = ["Process", "Program", "Stopped", "Supervisor", "stop_all"]

log = logging.getLogger(__name__)

_STEP_S = 0.1
_POLL_S = 0.02
#: A longer pause between two looks means that this process itself was stopped.
_LONGEST_LOOK_S = 1.0
#: A program that dies this often before its first answer is given up.
_DEATHS_AT_START = 3


# --- one process


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program of the stack: a server, or a service of dream.

    Parameters:
      name: its name in messages and log files.
      argv: the program and its arguments.
      env: its whole environment.
      cwd: its working folder.
      log: the file to which its output is appended.
      is_ready: whether it answers; called often, returns within a second.
      ready_file: a file that it creates when it takes work; removed before each start.
      life_timeout_s: the program counts as hung, and is killed, when its ready file stays untouched for this time; 0
        means that it does not touch the file.
      answers: called in a thread before that kill; a program that answers is busy, and is not killed.
      stop_timeout_s: time between SIGTERM and SIGKILL.
      is_ours: whether it is a service of dream, not a server.
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
    """A running program.

    Parameters:
      program: the program.
      keep_open: file descriptors that the child inherits, such as the data folder's lock.

    Raises:
      StackError: the program cannot be run, or this is not the main thread (the child would die with the thread).
    """

    def __init__(self, program: Program, *, keep_open: Sequence[int] = ()) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise StackError(f"{program.name} can only be started from the main thread")
        if program.ready_file is not None:
            program.ready_file.unlink(missing_ok=True)
        rotate(program.log)
        self.program = program
        self.started_at = time.monotonic()
        self._pulse = _Pulse()
        self._question: _Question | None = None
        try:
            with program.log.open("ab") as log:
                # A session of its own: the supervisor alone handles a Ctrl-C in the terminal.
                self._popen = subprocess.Popen(
                    tethered(list(program.argv)),
                    env=dict(program.env),
                    cwd=program.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=tuple(keep_open),
                    start_new_session=True,
                )
        except OSError as error:
            raise StackError(f"{program.name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self.started_at

    def is_hung(self) -> bool:
        """Whether its ready file stays untouched, and it does not answer."""
        program = self.program
        if program.ready_file is None or not program.life_timeout_s:
            return False
        if self._pulse.silent_s(program.ready_file) <= program.life_timeout_s:
            self._question = None
            return False
        if program.answers is None:
            return True
        if self._question is None:
            self._question = _Question(program.answers)
        if self._question.answer:
            log.warning("%s does not touch its ready file, but it answers; it is not killed", program.name)
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
            raise StackError(f"{self.program.name} (process {self.pid}) does not end") from None


class _Question:
    """A call in a thread of its own, because the answer may take long.

    Parameters:
      ask: the call.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        #: None until the call returns.
        self.answer: bool | None = None
        threading.Thread(target=self._run, args=(ask,), daemon=True).start()

    def _run(self, ask: Callable[[], bool]) -> None:
        self.answer = ask()


class _Pulse:
    """The time for which a file has not been touched. It counts only while this process looks: both may be stopped."""

    def __init__(self) -> None:
        self._touched_ns = 0
        self._looked_at = 0.0
        self._silent_s = 0.0

    def silent_s(self, path: Path) -> float:
        """Look at the file; 0 if it does not exist yet."""
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
    """Send SIGTERM to each in order, SIGKILL to each that outlives its time, and wait for all.

    Parameters:
      is_hurried: true means SIGKILL at once.
    """
    for process in processes:
        process.terminate()
    begun = time.monotonic()
    left = [process for process in processes if process.exit_code() is None]
    while left:
        waited_s = time.monotonic() - begun
        for process in left:
            if is_hurried() or waited_s >= process.program.stop_timeout_s:
                process.kill()
                process.reap()
        left = [process for process in left if process.exit_code() is None]
        if left:
            time.sleep(_POLL_S)


# --- all of them


class Stopped(Exception):
    """A signal asked this process to stop; no error."""


class Supervisor:
    """Starts programs, and restarts each that dies.

    Parameters:
      keep_open: file descriptors that every program inherits.
      on_step: called at each step, for example to copy log files.
    """

    def __init__(self, *, keep_open: Sequence[int] = (), on_step: Callable[[], None] = lambda: None) -> None:
        self._keep_open = tuple(keep_open)
        self._on_step = on_step
        self._programs: dict[str, _Supervised] = {}
        self._stop_asked_at: float | None = None
        self._is_hurried = False

    # --- signals

    @contextmanager
    def signals(self) -> Iterator[None]:
        """In this block SIGTERM, SIGINT and SIGHUP stop the stack; a second signal hurries it."""
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it
            watched.append(signal.SIGHUP)
        before = {each: signal.signal(each, self._on_signal) for each in watched}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._stop_asked_at is None:
            self._stop_asked_at = time.monotonic()
        elif time.monotonic() - self._stop_asked_at > SAME_SIGNAL_S:
            self._is_hurried = True

    # --- programs

    def start(self, program: Program) -> None:
        """Start a program, and restart it whenever it dies."""
        self._programs[program.name] = _Supervised(program, self._keep_open)

    def pid_of(self, name: str) -> int:
        """The process ID of a program.

        Raises:
          StackError: the program does not run at the moment.
        """
        kept = self._programs.get(name)
        if kept is None or kept.process is None:
            raise StackError(f"{name} is not running")
        return kept.process.pid

    def wait_ready(self, *, timeout_s: float) -> None:
        """Wait until every program answers.

        Raises:
          Stopped: a signal came.
          SettingsError: a service reports a wrong setting.
          StackError: a program keeps dying, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(self._programs.values())
        while waiting := [kept for kept in waiting if not kept.is_ready()]:
            for kept in waiting:
                kept.check_start()
            if time.monotonic() > deadline:
                names = ", ".join(kept.program.name for kept in waiting)
                raise StackError(f"{names} did not answer within {timeout_s:g} s; see {waiting[0].program.log}")
            self.step(0.03)

    def run_once(self, program: Program, *, timeout_s: float) -> None:
        """Run a program that ends by itself, beside the others.

        Raises:
          Stopped, SettingsError, StackError: as `wait_ready`.
        """
        process = Process(program, keep_open=self._keep_open)
        deadline = time.monotonic() + timeout_s
        try:
            while (code := process.exit_code()) is None:
                if time.monotonic() > deadline:
                    raise StackError(f"{program.name} did not end within {timeout_s:g} s; see {program.log}")
                self.step(0.03)
            if code != 0:
                raise _failure(program, code)
        finally:
            stop_all([process])

    def run(self) -> None:
        """Keep the programs running until a signal comes."""
        try:
            while True:
                self.step()
        except Stopped:
            return

    def step(self, pause_s: float = _STEP_S) -> None:
        """Restart dead programs, then pause.

        Raises:
          Stopped: a signal came.
        """
        for kept in self._programs.values():
            kept.keep_up()
        self._on_step()
        if self._stop_asked_at is not None:
            raise Stopped
        time.sleep(pause_s)

    def stop(self, *order: Iterable[str]) -> None:
        """Stop the programs group by group; those of one group together, signalled in the given order.

        A second signal kills the rest.
        """
        for names in order:
            processes = [
                kept.process for name in names if (kept := self._programs.pop(name, None)) and kept.process is not None
            ]
            stop_all(processes, is_hurried=lambda: self._is_hurried)
            self._on_step()

    def kill(self) -> None:
        """Kill all programs."""
        self._is_hurried = True
        self.stop(list(self._programs))


class _Supervised:
    """A program, its process, and its deaths."""

    def __init__(self, program: Program, keep_open: Sequence[int]) -> None:
        self.program = program
        self._keep_open = keep_open
        self._back_off = BackOff()
        self._next_start_at = 0.0
        self._last_code = 0
        self.process: Process | None = Process(program, keep_open=keep_open)

    def is_ready(self) -> bool:
        return self.process is not None and self.process.exit_code() is None and self.program.is_ready()

    def keep_up(self) -> None:
        rotate_open(self.program.log)
        if self.process is None:
            if time.monotonic() >= self._next_start_at:
                self.process = Process(self.program, keep_open=self._keep_open)
            return
        code = self.process.exit_code()
        if code is None:
            if self.process.is_hung():
                log.warning("%s hangs for %g s; it is killed", self.program.name, self.program.life_timeout_s)
                self.process.kill()
            return
        delay_s = self._back_off.next_pause_s(self.process.lived_s)
        self._last_code, self._next_start_at = code, time.monotonic() + delay_s
        log.warning("%s ended (%s); it is restarted in %.1f s", self.program.name, describe_exit(code), delay_s)
        self.process = None

    def check_start(self) -> None:
        """Give up a program that cannot start."""
        if self._back_off.failures >= _DEATHS_AT_START or (
            self.program.is_ours and self._back_off.failures and self._last_code == EXIT_SETTINGS
        ):
            raise _failure(self.program, self._last_code)


def _failure(program: Program, code: int) -> StackError | SettingsError:
    """The error for a program that did not start, with the last line of its log."""
    last = last_line(program.log)
    if program.is_ours and code == EXIT_SETTINGS:
        return SettingsError(last.removeprefix("dream: ") or f"{program.name}: a setting is wrong; see {program.log}")
    if program.is_ours and last.startswith("dream: "):
        return StackError(f"{last.removeprefix('dream: ')}; see {program.log}")
    return StackError(
        f"{program.name} did not start ({describe_exit(code)}): {last or 'its log is empty'}; see {program.log}"
    )

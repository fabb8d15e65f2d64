"""Keeps parts up: starts each again when it dies, waits until they answer, stops them in order.

One thread, no locks: signals only set marks, and `step()` looks at everything ten times a second.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from dream.errors import SettingsError, StackError
from dream.process import EXIT_SETTINGS
from dream.stack.backoff import BackOff
from dream.stack.logs import last_line, rotate_open
from dream.stack.processes import Part, Process, describe_exit, stop_all

__all__ = ["SAME_SIGNAL_S", "Stopped", "Supervisor"]

log = logging.getLogger(__name__)

_STEP_S = 0.1
#: A part that dies this often before it ever answered is given up.
_DEATHS_AT_START = 3
#: `timeout`, among others, signals a process and then its group: within this time that is one signal.
SAME_SIGNAL_S = 0.5


class Stopped(Exception):
    """We were asked to stop; no error."""


class Supervisor:
    """Runs parts and keeps them running.

    Parameters:
      keep_open: file descriptors that every part shares.
      on_step: called at each step, to show what the parts say, for example.
    """

    def __init__(self, *, keep_open: Sequence[int] = (), on_step: Callable[[], None] = lambda: None) -> None:
        self._keep_open = tuple(keep_open)
        self._on_step = on_step
        self._parts: dict[str, _Kept] = {}
        self._stop_asked_at: float | None = None
        self._is_hurried = False

    # --- being asked to stop

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, SIGTERM, SIGINT and SIGHUP ask to stop; a second one hurries."""
        watched = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means it
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

    # --- running

    def start(self, part: Part) -> None:
        """Start a part and keep it up from now on."""
        self._parts[part.name] = _Kept(part, self._keep_open)

    def pid_of(self, name: str) -> int:
        """The process of a part.

        Raises:
          StackError: it is not running at the moment.
        """
        kept = self._parts.get(name)
        if kept is None or kept.process is None:
            raise StackError(f"{name} is not running")
        return kept.process.pid

    def wait_ready(self, *, timeout_s: float) -> None:
        """Wait until every part answers.

        Raises:
          Stopped: we were asked to stop.
          SettingsError: a part of ours says that a setting is wrong.
          StackError: a part keeps dying, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(self._parts.values())
        while waiting := [kept for kept in waiting if not kept.is_ready()]:
            for kept in waiting:
                kept.check_start()
            if time.monotonic() > deadline:
                names = ", ".join(kept.part.name for kept in waiting)
                raise StackError(f"{names} did not answer within {timeout_s:g} s; see {waiting[0].part.log}")
            self.step(0.03)

    def run_once(self, part: Part, *, timeout_s: float) -> None:
        """Run a part that ends by itself, while the others are kept up.

        Raises:
          Stopped, SettingsError, StackError: as `wait_ready`.
        """
        process = Process(part, keep_open=self._keep_open)
        deadline = time.monotonic() + timeout_s
        try:
            while (code := process.exit_code()) is None:
                if time.monotonic() > deadline:
                    raise StackError(f"{part.name} did not end within {timeout_s:g} s; see {part.log}")
                self.step(0.03)
            if code != 0:
                raise _failure(part, code)
        finally:
            stop_all([process])

    def run(self) -> None:
        """Keep the parts up until we are asked to stop."""
        try:
            while True:
                self.step()
        except Stopped:
            return

    def step(self, pause_s: float = _STEP_S) -> None:
        """Start again what died, then pause.

        Raises:
          Stopped: we were asked to stop.
        """
        for kept in self._parts.values():
            kept.keep_up()
        self._on_step()
        if self._stop_asked_at is not None:
            raise Stopped
        time.sleep(pause_s)

    def stop(self, *order: Iterable[str]) -> None:
        """Stop the parts group by group; those of a group at once, signalled in the order given.

        A second signal kills what is left.
        """
        for names in order:
            processes = [
                kept.process for name in names if (kept := self._parts.pop(name, None)) and kept.process is not None
            ]
            stop_all(processes, is_hurried=lambda: self._is_hurried)
            self._on_step()

    def kill(self) -> None:
        """End all parts at once."""
        self._is_hurried = True
        self.stop(list(self._parts))


class _Kept:
    """A part, its process, and its deaths."""

    def __init__(self, part: Part, keep_open: Sequence[int]) -> None:
        self.part = part
        self._keep_open = keep_open
        self._backoff = BackOff()
        self._next_start_at = 0.0
        self._last_code = 0
        self.process: Process | None = Process(part, keep_open=keep_open)

    def is_ready(self) -> bool:
        return self.process is not None and self.process.exit_code() is None and self.part.is_ready()

    def keep_up(self) -> None:
        rotate_open(self.part.log)
        if self.process is None:
            if time.monotonic() >= self._next_start_at:
                self.process = Process(self.part, keep_open=self._keep_open)
            return
        code = self.process.exit_code()
        if code is None:
            if self.process.is_hung():
                log.warning("%s has hung for %g s; it is killed", self.part.name, self.part.life_timeout_s)
                self.process.kill()
            return
        delay_s = self._backoff.next_delay_s(self.process.lived_s)
        self._last_code, self._next_start_at = code, time.monotonic() + delay_s
        log.warning("%s ended (%s); it is started again in %.1f s", self.part.name, describe_exit(code), delay_s)
        self.process = None

    def check_start(self) -> None:
        """Give up on a part that cannot start."""
        if self._backoff.deaths >= _DEATHS_AT_START or (
            self.part.is_ours and self._backoff.deaths and self._last_code == EXIT_SETTINGS
        ):
            raise _failure(self.part, self._last_code)


def _failure(part: Part, code: int) -> StackError | SettingsError:
    """What to raise for a part that did not start: its own last words, if it left any."""
    said = last_line(part.log)
    if part.is_ours and code == EXIT_SETTINGS:
        return SettingsError(said.removeprefix("dream: ") or f"{part.name}: a setting is wrong; see {part.log}")
    if part.is_ours and said.startswith("dream: "):
        return StackError(f"{said.removeprefix('dream: ')}; see {part.log}")
    return StackError(f"{part.name} did not start ({describe_exit(code)}): {said or 'it said nothing'}; see {part.log}")

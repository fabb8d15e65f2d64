"""Respawn: run a function in a child process, and start it again when the child dies. `dream worker` uses it.

The fork comes before heavy imports: a new child pays for the imports but for no new interpreter, and the parent stays
small. Call it from the main thread of a process that has no other threads yet.

    keep_running ──fork──► child: target()          SIGTERM, SIGINT, SIGHUP are passed on
         ▲                   │ dies                  a second signal, or stop_timeout_s, kills
         └──── back-off ─────┘                       the child dies with its parent (PR_SET_PDEATHSIG)

The parent has its signals blocked and takes them one by one (`sigtimedwait`): none can fall between two steps.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from dream.work.notify import pings, status
from dream.work.process import EXIT_SETTINGS, SAME_SIGNAL_S, describe_exit, say_stopping
from dream.work.tether import die_with

__all__ = ["BackOff", "keep_running"]

log = logging.getLogger(__name__)

_KILLED = 128 + signal.SIGKILL
#: The signals that the parent gets, and those that it passes on: a terminal that closes asks for a clean stop, too.
_PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
}
#: The longest single wait of the parent, in seconds.
_LONGEST_WAIT_S = 3600.0


class BackOff:
    """Delays that double with each death, and begin again at the first after a steady life.

    Parameters:
      first_s: delay after the first death.
      max_s: longest delay.
      steady_s: after a life of at least this long the count of deaths begins anew.
    """

    def __init__(self, *, first_s: float = 0.2, max_s: float = 5.0, steady_s: float = 10.0) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._steady_s = steady_s
        self.deaths = 0

    def next_delay_s(self, lived_s: float) -> float:
        """Count a death after a life of `lived_s`; the delay before the next life."""
        if lived_s >= self._steady_s:
            self.deaths = 0
        self.deaths += 1
        # The exponent is bounded: 2**1024 is no float.
        return min(self._max_s, self._first_s * 2.0 ** min(self.deaths - 1, 30))


def keep_running(target: Callable[[], int], *, stop_timeout_s: float) -> int:
    """Run `target` in a child process, again and again, until a signal asks to stop.

    The child is in a process group of its own: a Ctrl-C reaches it once, through its parent. It ends by `os._exit`
    with what `target` returns: stuck threads do not delay it, and `atexit` is not run.

    Parameters:
      target: the work; returns an exit code. It installs its own signal handlers; until then signals end it.
      stop_timeout_s: time between the signal to stop and SIGKILL.

    Returns:
      0 after a clean stop; 2 when `target` says that a setting is wrong (no second try); 137 when it had to be
      killed; otherwise what `target` returned while it was stopping.
    """
    if sys.platform == "darwin":  # neither sigtimedwait nor PR_SET_PDEATHSIG
        return target()
    return _Keeper(target, stop_timeout_s).run()


class _Keeper:
    def __init__(self, target: Callable[[], int], stop_timeout_s: float) -> None:
        self._target = target
        self._stop_timeout_s = stop_timeout_s
        self._stop_asked_at: float | None = None
        self._was_killed = False
        self._stop_signals = {
            number
            for number in _PASSED_ON
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN  # `nohup` is on purpose
        }

    def run(self) -> int:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._stop_signals, signal.SIGCHLD})
        try:
            return self._keep(mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _keep(self, mask: set[int | signal.Signals]) -> int:
        backoff = BackOff()
        while True:
            started_at = time.monotonic()
            code = self._wait(self._fork(mask))
            if self._stop_asked_at is not None:
                return self._code_of_stop(code)
            if code == EXIT_SETTINGS:
                return code
            delay_s = backoff.next_delay_s(time.monotonic() - started_at)
            log.warning("the worker process ended (%s); starting again in %.1f s", describe_exit(code), delay_s)
            status(f"starting again: the worker process ended ({describe_exit(code)})")
            if self._take_signal(self._stop_signals, delay_s) is not None:
                say_stopping()
                return 0

    # --- the child

    def _fork(self, mask: set[int | signal.Signals]) -> int:
        parent, is_watched = os.getpid(), pings()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            if is_watched:  # the child has the loop that matters
                os.environ["WATCHDOG_PID"] = str(os.getpid())
            self._be_child(parent, mask)
        return child

    def _be_child(self, parent: int, mask: set[int | signal.Signals]) -> NoReturn:
        code = 1
        try:
            die_with(parent)
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = self._target()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)  # noqa: T201 (as Python does for a text)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
        except BaseException:  # noqa: BLE001 (the edge of a process: nothing above may run a second time)
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    code = code or 1
            os._exit(code)

    # --- the parent

    def _wait(self, child: int) -> int:
        """Wait for the child's end, passing signals on; its exit code, negative for a signal."""
        kill_at: float | None = None
        while (code := _reap(child)) is None:
            number = self._take_signal({*self._stop_signals, signal.SIGCHLD}, _until(kill_at))
            is_late = kill_at is not None and time.monotonic() >= kill_at
            if number in _PASSED_ON and self._stop_asked_at is None:
                self._stop_asked_at = time.monotonic()
                kill_at = self._stop_asked_at + self._stop_timeout_s
                say_stopping()
                os.kill(child, _PASSED_ON[number])
            elif is_late or (number in _PASSED_ON and self._is_second_signal()):
                self._was_killed = True
                os.kill(child, signal.SIGKILL)
        return code

    def _take_signal(self, numbers: set[signal.Signals], timeout_s: float) -> signal.Signals | None:
        taken = signal.sigtimedwait(numbers, max(0.0, timeout_s))
        return signal.Signals(taken.si_signo) if taken is not None else None

    def _is_second_signal(self) -> bool:
        """Whether a signal is not just the echo of the first: `timeout` signals a process and then its group."""
        return self._stop_asked_at is not None and time.monotonic() - self._stop_asked_at > SAME_SIGNAL_S

    def _code_of_stop(self, code: int) -> int:
        if self._was_killed:
            return _KILLED
        was_ended_by_signal = -code in _PASSED_ON or code == 128 + signal.SIGINT
        return 0 if was_ended_by_signal else abs(code)


def _until(moment: float | None) -> float:
    return _LONGEST_WAIT_S if moment is None else min(_LONGEST_WAIT_S, moment - time.monotonic())


def _reap(child: int) -> int | None:
    """The child's exit code once it has ended. Other children are orphans that came to process 1 of a container."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            return None

"""Respawn: run a function in child processes, and start each again when it dies. Workers and gateways use it.

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
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from dream.work.back_off import BackOff
from dream.work.notify import pings, status
from dream.work.process import EXIT_SETTINGS, SAME_SIGNAL_S, describe_exit, say_stopping
from dream.work.tether import die_with

__all__ = ["keep_all_running", "keep_running"]

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
_LOOK_EVERY_S = 1.0


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
    return _Keeper(lambda _number: target(), 1, stop_timeout_s, "worker").run()


def keep_all_running(
    target: Callable[[int], int],
    count: int,
    *,
    stop_timeout_s: float,
    name: str,
    look: Callable[[], None],
    before_stop: Callable[[], object],
) -> int:
    """Run `target` in several child processes, as `keep_running` does in one; not on macOS.

    Parameters:
      target: the work; it gets the number of its child, from 0, which the next child has too after a death.
      count: the number of children.
      stop_timeout_s: as of `keep_running`, for all children together.
      name: the service, for the log.
      look: called in the parent about once a second until it stops. It shows that the service lives, so a watchdog
        waits for the parent and not for the children.
      before_stop: called in the parent before it asks the children to stop.

    Returns:
      As `keep_running`; the highest code of all children.
    """
    return _Keeper(target, count, stop_timeout_s, name, look, before_stop).run()


class _Child(NamedTuple):
    number: int
    started_at: float


class _Keeper:
    def __init__(
        self,
        target: Callable[[int], int],
        count: int,
        stop_timeout_s: float,
        name: str,
        look: Callable[[], None] | None = None,
        before_stop: Callable[[], object] = lambda: None,
    ) -> None:
        self._target = target
        self._stop_timeout_s = stop_timeout_s
        self._name = name
        self._look = look
        self._before_stop = before_stop
        #: The children that wait for their start, each with its moment.
        self._due_at = dict.fromkeys(range(count), 0.0)
        self._children: dict[int, _Child] = {}
        self._back_offs = [BackOff() for _ in range(count)]
        self._code = 0
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
            self._keep(mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return _KILLED if self._was_killed else self._code

    def _keep(self, mask: set[int | signal.Signals]) -> None:
        while True:
            self._start_due(mask)
            for child, code in self._reap():
                self._note_end(child, code)
            if not self._children and not self._due_at:
                return
            self._obey(self._take_signal())
            if self._look is not None and self._stop_asked_at is None:
                self._look()

    def _start_due(self, mask: set[int | signal.Signals]) -> None:
        now = time.monotonic()
        for number in [each for each, due_at in self._due_at.items() if due_at <= now]:
            del self._due_at[number]
            self._children[self._fork(number, mask)] = _Child(number, now)

    def _note_end(self, child: _Child, code: int) -> None:
        if self._stop_asked_at is not None:
            self._code = max(self._code, _code_of_stop(code))
        elif code == EXIT_SETTINGS:  # a new child would say the same
            self._code = code
            self._stop(signal.SIGTERM)
        else:
            delay_s = self._back_offs[child.number].next_pause_s(time.monotonic() - child.started_at)
            self._due_at[child.number] = time.monotonic() + delay_s
            how = describe_exit(code)
            log.warning("the %s process ended (%s); starting again in %.1f s", self._name, how, delay_s)
            status(f"starting again: the {self._name} process ended ({how})")

    def _stop(self, number: signal.Signals) -> None:
        self._stop_asked_at = time.monotonic()
        self._due_at.clear()
        self._before_stop()
        self._signal_all(number)

    # --- the child

    def _fork(self, number: int, mask: set[int | signal.Signals]) -> int:
        parent, is_watched = os.getpid(), pings() and self._look is None
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            if is_watched:  # the child has the loop that matters
                os.environ["WATCHDOG_PID"] = str(os.getpid())
            self._be_child(number, parent, mask)
        return child

    def _be_child(self, number: int, parent: int, mask: set[int | signal.Signals]) -> NoReturn:
        code = 1
        try:
            die_with(parent)
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = self._target(number)
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

    def _reap(self) -> Iterator[tuple[_Child, int]]:
        """The children that have ended. Other processes are orphans that came to process 1 of a container."""
        while True:
            try:
                pid, ending = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                yield self._children.pop(pid), os.waitstatus_to_exitcode(ending)

    def _take_signal(self) -> signal.Signals | None:
        moments = [*self._due_at.values()]
        if self._stop_asked_at is not None and not self._was_killed:
            moments.append(self._stop_asked_at + self._stop_timeout_s)
        longest_s = _LONGEST_WAIT_S if self._look is None else _LOOK_EVERY_S
        wait_s = min([longest_s, *(moment - time.monotonic() for moment in moments)])
        taken = signal.sigtimedwait({*self._stop_signals, signal.SIGCHLD}, max(0.0, wait_s))
        return signal.Signals(taken.si_signo) if taken is not None else None

    def _obey(self, number: signal.Signals | None) -> None:
        """Pass a signal on; kill the children that were asked to stop and do not."""
        if number in _PASSED_ON and self._stop_asked_at is None:
            say_stopping()
            self._stop(_PASSED_ON[number])
        elif self._is_late() or (number in _PASSED_ON and self._is_second_signal()):
            self._was_killed = True
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _is_late(self) -> bool:
        return self._stop_asked_at is not None and time.monotonic() >= self._stop_asked_at + self._stop_timeout_s

    def _is_second_signal(self) -> bool:
        """Whether a signal is not just the echo of the first: `timeout` signals a process and then its group."""
        return self._stop_asked_at is not None and time.monotonic() - self._stop_asked_at > SAME_SIGNAL_S


def _code_of_stop(code: int) -> int:
    was_ended_by_signal = -code in _PASSED_ON or code == 128 + signal.SIGINT
    return 0 if was_ended_by_signal else abs(code)

"""Fault points: a test makes a process die or stop there, and checks that nothing is lost.

A step of the flow is a function under `@step("put")`, and has two points: `put:before` and `put:after`. `DREAM_FAULT`
arms one of them in every process that reads its settings, and in the processes of its pool:

    DREAM_FAULT=put:after=kill           kill -9 of the process that reaches the point
    DREAM_FAULT=put:before=stop*1@FILE   SIGSTOP, the first time only; FILE counts, for all processes together

| action | does |
| --- | --- |
| `kill` | SIGKILL: no handler, no `finally`, nothing is flushed |
| `stop` | SIGSTOP: the process stands still until it receives SIGCONT |
| `hang` | blocks this thread for ever |
| `hold` | blocks this thread until FILE has a line `go` |

Never set it in production. Unset, a step costs two comparisons.

`watch` names a function that is told how long each step took, for metrics.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["ACTIONS", "Fault", "arm", "armed", "parse", "step", "watch"]

P = ParamSpec("P")
T = TypeVar("T")

ACTIONS = ("kill", "stop", "hang", "hold")
_FORM = re.compile(r"(?P<point>[a-z_]+:(before|after))=(?P<action>[a-z]+)(\*(?P<times>[0-9]+)@(?P<counter>.+))?")


@dataclass(frozen=True)
class Fault:
    """An action at a point.

    Parameters:
      point: `<step>:before` or `<step>:after`.
      action: one of `ACTIONS`.
      times: the number of actions where a counter is named; else every time.
      counter: the file in which all processes count together.
    """

    point: str
    action: str
    times: int = 0
    counter: Path | None = None

    def strike(self) -> None:
        """Take the action, unless it was taken often enough."""
        if not self._is_my_turn():
            return
        if self.action == "hang":
            threading.Event().wait()
        if self.action == "hold":
            while self.counter is not None and "go" not in self.counter.read_text().split():
                threading.Event().wait(0.02)
            return
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)

    def _is_my_turn(self) -> bool:
        if self.counter is None:
            return True
        with self.counter.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            is_mine = len(file.readlines()) < self.times
            if is_mine:
                # The process, for the test that waits for it.
                file.write(f"{os.getpid()}\n")
        return is_mine


_armed: Fault | None = None
_text: str | None = None
_watcher: Callable[[str, float], None] | None = None


def parse(text: str) -> Fault:
    """Read the value of `DREAM_FAULT`.

    Raises:
      ValueError: the value is wrong; the error says what is allowed.
    """
    found = _FORM.fullmatch(text)
    if found is None or found["action"] not in ACTIONS:
        raise ValueError(f"it must be STEP:before or STEP:after, =, one of {', '.join(ACTIONS)}, and perhaps *N@FILE")
    counter = Path(found["counter"]) if found["counter"] else None
    return Fault(found["point"], found["action"], int(found["times"] or 0), counter)


def arm(text: str | None) -> None:
    """Arm the fault in this process; None disarms."""
    global _armed, _text
    _armed, _text = (parse(text), text) if text else (None, None)


def armed() -> str | None:
    """The fault of this process as text, for a process that it starts."""
    return _text


def watch(watcher: Callable[[str, float], None] | None) -> None:
    """Call `watcher(step, seconds)` after each step of this process, even one that raises; None ends this."""
    global _watcher
    _watcher = watcher


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function a step of the flow, with a fault point before it and one after it."""
    before, after = f"{name}:before", f"{name}:after"

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def stepped(*args: P.args, **kwargs: P.kwargs) -> T:
            fault, watcher = _armed, _watcher
            if fault is None and watcher is None:
                return function(*args, **kwargs)
            if fault is not None and fault.point == before:
                fault.strike()
            began = time.perf_counter()
            try:
                result = function(*args, **kwargs)
            finally:
                if watcher is not None:
                    watcher(name, time.perf_counter() - began)
            if fault is not None and fault.point == after:
                fault.strike()
            return result

        return stepped

    return decorate

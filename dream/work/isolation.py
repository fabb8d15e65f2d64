"""Isolation of runs in one worker process: side by side, or alone if the run may kill its worker.

    a worker dies ─► its messages come back as suspects ─► they run again, counted
                                                            └─► it dies again ─► they run alone, counted
                                                                                  └─► it dies again ─► the task is lost

Other messages that the dead worker had in work are suspects, too. They succeed at the latest when they run alone, so
the death that would be a task's last is not caused by a neighbour (docs/architecture.md, "A picture that kills its
worker does not kill the next ones"). Tasks with a row count their deaths in the row; `Suspects` counts the deaths of
other tasks in Redis.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Condition
from typing import TYPE_CHECKING, Any

from dream.errors import ResultsUnavailable
from dream.work.patience import for_a_minute
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = ["MAX_DEATHS", "Crowded", "Isolation", "Suspects"]

#: The number of deaths after which a task does not run again.
MAX_DEATHS = 3
#: The number of a suspect's runs without an end. The first death, which made the task a suspect, does not count.
_MOST_BEGUN = MAX_DEATHS - 1
_REMEMBERED_S = 7 * 86400
#: Seconds for which a suspect that must be alone keeps other runs from beginning; more would be bad if runs take hours.
_PATIENCE_S = 2.0
#: Seconds alone after which a suspect shares the worker again: it does not kill its worker at once.
_ALONE_S = 60.0


class Isolation:
    """A gate that many runs may pass together, or one alone."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0

    def enter(self, *, alone: bool, patience_s: float | None = None) -> bool:
        """Wait for a place. A run that must be alone goes before later runs; otherwise it would wait for ever.

        Parameters:
          patience_s: seconds after which a run that must be alone gives up; None means never.

        Returns:
          Whether there is a place.
        """
        with self._changed:
            if alone:
                self._waiting_alone += 1
                is_empty = self._changed.wait_for(lambda: self._inside == 0, patience_s)
                self._waiting_alone -= 1
                if not is_empty:
                    self._changed.notify_all()
                    return False
                self._alone = True
            else:
                while self._alone or self._waiting_alone:
                    self._changed.wait()
            self._inside += 1
        return True

    def share(self) -> None:
        """Let other runs in beside a run that was alone."""
        with self._changed:
            self._alone = False
            self._changed.notify_all()

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._inside -= 1
            if self._alone or self._waiting_alone:
                self._alone = False
                self._changed.notify_all()


class Crowded(Exception):
    """A suspect cannot be alone now."""


class Suspects:
    """Runs of tasks without a row. A run that ends, or whose message is requeued, no longer counts.

    Parameters:
      settings: where Redis is.
      with_rows: the gate of tasks with a row in this process; a suspect that runs alone keeps them out, too.
    """

    def __init__(self, settings: Settings, with_rows: Isolation) -> None:
        self._client = connect(settings.events_url)
        self._prefix = f"{settings.redis_prefix}:suspects:"
        #: The gate of tasks without a row.
        self.runs = Isolation()
        self._gates = (self.runs, with_rows)

    @contextmanager
    def suspected(self, delivery: str) -> Iterator[bool]:
        """Count the run of a suspect inside the block; yields whether the task is lost and must not run.

        Raises:
          Crowded: it must run alone and cannot now.
          ResultsUnavailable: Redis was away for a minute.
        """
        begun = int(for_a_minute(lambda: self._do("get", delivery)) or 0)
        with ExitStack() as held:
            if begun < _MOST_BEGUN - 1:
                self.runs.enter(alone=False)
                held.callback(self.runs.leave)
            elif begun < _MOST_BEGUN:
                self._be_alone(held)
            if begun < _MOST_BEGUN:
                for_a_minute(lambda: self._do("set", delivery, begun + 1, ex=_REMEMBERED_S))
                held.callback(self.forget, delivery)
            yield begun >= _MOST_BEGUN

    def forget(self, delivery: str) -> None:
        """Forget the counted run: it has not killed its worker."""
        with suppress(ResultsUnavailable):  # there are few of these keys, and they expire
            self._do("delete", delivery)

    def _be_alone(self, held: ExitStack) -> None:
        for gate in self._gates:
            if not gate.enter(alone=True, patience_s=_PATIENCE_S):
                raise Crowded
            held.callback(gate.leave)
        timer = threading.Timer(_ALONE_S, self._share)
        timer.daemon = True
        timer.start()
        held.callback(timer.cancel)

    def _share(self) -> None:
        for gate in self._gates:
            gate.share()

    def _do(self, command: str, delivery: str, *arguments: Any, **more: Any) -> Any:
        from redis.exceptions import RedisError  # db imports this module for a number, and without Redis

        try:
            return getattr(self._client, command)(self._prefix + delivery, *arguments, **more)
        except RedisError as error:
            raise ResultsUnavailable(f"deaths cannot be counted: {type(error).__name__}") from error

"""Runs of callers' tasks beside each other, and of those that may have killed their worker.

    a worker dies ─► whatever it held comes back as a suspect ─► runs again, counted
                                                                   └─► dies again ─► runs alone, counted
                                                                                       └─► dies again ─► it is lost

Others that the dead worker held, or that ran beside, are suspects too; they end well at the latest when they run alone.
A run that ends, however it does, or is handed back, is not counted any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from dream.compat.worker.patience import patiently
from dream.errors import ResultsUnavailable
from dream.middleware.isolation import Isolation
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["MAX_DEATHS", "Crowded", "Suspects"]

#: A task whose worker died this often is not run again, as one of ours.
MAX_DEATHS = 3
#: Runs of a suspect that did not end; its first death, which made it one, is not among them.
_MOST_BEGUN = MAX_DEATHS - 1
_REMEMBERED_S = 7 * 86400
#: Whoever wants to be alone keeps others from beginning; not for long, as runs may take hours.
_PATIENCE_S = 2.0
#: One that has been alone for so long shares the worker again: it does not kill it at once.
_ALONE_S = 60.0


class Crowded(Exception):
    """A suspect cannot be alone now."""


class Suspects:
    """See the module.

    Parameters:
      settings: where Redis is.
      own: the runs of dream's own tasks in this process, which a suspect must not be beside, either.
    """

    def __init__(self, settings: Settings, own: Isolation) -> None:
        self._client = connect(settings.events_url)
        self._prefix = f"{settings.redis_prefix}:suspects:"
        #: The runs of callers' tasks in this process.
        self.runs = Isolation()
        self._gates = (self.runs, own)

    @contextmanager
    def suspected(self, delivery: str) -> Iterator[bool]:
        """Around the run of a suspect; gives whether it is lost, and must not run.

        Raises:
          Crowded: it must run alone and cannot now.
          ResultsUnavailable: Redis was away for a minute.
        """
        begun = int(patiently(lambda: self._do("get", delivery)) or 0)
        with ExitStack() as held:
            if begun < _MOST_BEGUN - 1:
                self.runs.enter(alone=False)
                held.callback(self.runs.leave)
            elif begun < _MOST_BEGUN:
                self._be_alone(held)
            if begun < _MOST_BEGUN:
                patiently(lambda: self._do("set", delivery, begun + 1, ex=_REMEMBERED_S))
                held.callback(self.forget, delivery)
            yield begun >= _MOST_BEGUN

    def forget(self, delivery: str) -> None:
        """A run has not killed its worker."""
        with suppress(ResultsUnavailable):  # it is one of few, and expires
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
        try:
            return getattr(self._client, command)(self._prefix + delivery, *arguments, **more)
        except RedisError as error:
            raise ResultsUnavailable(f"deaths cannot be counted: {type(error).__name__}") from error

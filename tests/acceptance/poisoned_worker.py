"""`dream worker`, but one dream's uploads kill it: each time in the middle of the work of its neighbours.

    python -m tests.acceptance.poisoned_worker DREAM_ID NEIGHBOURS FOLDER

An upload of that dream waits until so many others are in work beside it, then kills the worker process. The others stay
in work until then. From its second death on it kills at once: nobody runs beside it any more. FOLDER counts the deaths.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from dramatiq import Broker, Middleware
from dramatiq.middleware import CurrentMessage

from dream.settings import load
from dream.work.respawn import keep_running

__all__: list[str] = []

_BESIDE_OTHERS = 2


class Poison(Middleware):
    """Kills its process where the poison runs."""

    def __init__(self, dream_id: int, neighbours: int, folder: Path) -> None:
        self._dream_id = dream_id
        self._neighbours = neighbours
        self._folder = folder
        self._in_work = threading.Semaphore(0)

    def before_process_message(self, broker: Broker, message: Any) -> None:  # noqa: ARG002
        deaths = len(list(self._folder.iterdir()))
        if message.args[0] != self._dream_id:
            self._in_work.release()
            if deaths < _BESIDE_OTHERS:
                threading.Event().wait()  # until the worker dies
            return
        if deaths < _BESIDE_OTHERS:
            for _ in range(self._neighbours):
                self._in_work.acquire()
        (self._folder / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main(dream_id: str, neighbours: str, folder: str) -> int:
    settings = load()

    def work() -> int:
        from dream.actors import broker, run

        # Inside the claim: a death is then that of a run.
        broker.add_middleware(Poison(int(dream_id), int(neighbours), Path(folder)), after=CurrentMessage)
        return run()

    return keep_running(work, stop_timeout_s=settings.shutdown_timeout_s)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

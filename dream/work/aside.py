"""Run calls that may hang in threads. Idle threads are kept, because a start of one costs more than most calls.

No process waits for them at its end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")

#: The inboxes of idle threads.
_idle: list[SimpleQueue[tuple[Future[Any], Callable[[], Any]]]] = []
os.register_at_fork(after_in_child=_idle.clear)


def run(call: Callable[[], T]) -> Future[T]:
    """Run `call` in another thread, at once."""
    future: Future[T] = Future()
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        threading.Thread(target=_serve, args=(inbox,), name="aside", daemon=True).start()
    inbox.put((future, call))
    return future


def _serve(inbox: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        _fulfil(*inbox.get(), inbox)


def _fulfil(future: Future[Any], call: Callable[[], Any], inbox: SimpleQueue[Any]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
        _idle.append(inbox)
        future.set_exception(error)
    else:
        _idle.append(inbox)  # before the result is set, because the caller may make its next call at once
        future.set_result(result)

"""Threads for calls that may hang. One that is done waits for the next: to start a thread costs more than most calls.

They are nobody's to wait for, so a process ends whatever they do.
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

#: Where the threads that have nothing to do wait for a call.
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
        _idle.append(inbox)  # before it is known: whoever waits may have the next call
        future.set_result(result)

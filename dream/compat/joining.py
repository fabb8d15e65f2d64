"""Whether this thread may wait for a result: a task that waits for another holds the place that the other needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dream.compat.stopping import is_in_worker

__all__ = ["allow_join_result", "assert_will_not_block", "denied_join_result", "task_join_will_block"]

_will_block: ContextVar[bool | None] = ContextVar("dream_join_will_block", default=None)


def task_join_will_block() -> bool:
    """Whether a task runs in this thread, and nobody has allowed it to wait."""
    said = _will_block.get()
    return is_in_worker() if said is None else said


def assert_will_not_block() -> None:
    """Refuse to wait in a task.

    Raises:
      RuntimeError
    """
    if task_join_will_block():
        raise RuntimeError(
            "never call result.get() within a task: it may wait for ever for the place that it holds; "
            "link the next task, or say `with allow_join_result():`"
        )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let the code in it wait for results, at its own risk."""
    with _saying(False):
        yield


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse to let the code in it wait for results: whoever runs a task puts this around it."""
    with _saying(True):
        yield


@contextmanager
def _saying(will_block: bool) -> Iterator[None]:
    token = _will_block.set(will_block)
    try:
        yield
    finally:
        _will_block.reset(token)

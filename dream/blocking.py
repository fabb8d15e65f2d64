"""A warning, once a process, of a blocking call on a running event loop, which stops the loop."""

from __future__ import annotations

import sys
import warnings

__all__ = ["BlockingCallWarning", "warn_on_loop"]

_has_warned = False


class BlockingCallWarning(RuntimeWarning):
    """A call that blocks was made on a running event loop."""


def warn_on_loop(call: str) -> None:
    """Warn if an asyncio event loop runs in this thread; once a process, at the caller's own line.

    Parameters:
      call: the name of the call, as the caller writes it.
    """
    global _has_warned
    asyncio = sys.modules.get("asyncio")  # a process that has not imported it runs no loop
    if _has_warned or asyncio is None or asyncio._get_running_loop() is None:
        return
    _has_warned = True
    warnings.warn(
        f"{call} blocks this event loop until it returns: call it in a thread, with `await asyncio.to_thread({call}, "
        "...)`, Starlette's and FastAPI's `run_in_threadpool` or Django's `sync_to_async`",
        BlockingCallWarning,
        stacklevel=_depth_of_caller(),
    )


def _depth_of_caller() -> int:
    """The stack level, as `warnings.warn` counts it, of the first frame outside dream."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "dream":
        frame, depth = frame.f_back, depth + 1
    return depth

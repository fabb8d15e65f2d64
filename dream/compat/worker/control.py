"""Commands of a caller's own, which workers answer: Celery's `celery.worker.control`.

    @inspect_command(args=[("limit", int)])
    def pools(state, limit=10): …           app.control.broadcast("pools", {"limit": 3}, reply=True)

`state` has `app`, `hostname` and nothing else of Celery's: what a worker consists of is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from dream.compat.exceptions import Unsupported

__all__ = ["COMMANDS", "add_consumer", "cancel_consumer", "control_command", "inspect_command"]

#: Those that were defined, by name.
COMMANDS: dict[str, Callable[..., Any]] = {}


def control_command(*args: Any, name: str | None = None, **_how: Any) -> Any:
    """Make a function a command of workers; what else Celery's takes describes it for a command line."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        COMMANDS[name or function.__name__] = function
        return function

    return define(args[0]) if args and callable(args[0]) else define


inspect_command = control_command


def add_consumer(*_: Any, **__: Any) -> NoReturn:
    """Refused: start a worker with `--queues`."""
    raise Unsupported("add_consumer is not supported: start a worker with --queues")


def cancel_consumer(*_: Any, **__: Any) -> NoReturn:
    """Refused: start a worker with `--queues`."""
    raise Unsupported("cancel_consumer is not supported: start a worker with --queues")

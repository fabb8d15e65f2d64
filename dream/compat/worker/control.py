"""Celery's `celery.worker.control`: commands of a caller's own, which workers answer, beside dream's `revoke`.

    @inspect_command(args=[("limit", int)])
    def pools(state, limit=10): …           app.control.broadcast("pools", {"limit": 3}, reply=True)

`state` has `app` and `hostname`; dream's workers have none of Celery's other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from dream.compat.failures import Terminated
from dream.compat.refused import CONTROL, refuse
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.compat.host import HostRuns
    from dream.compat.worker.actors import Tasks
    from dream.work.questions import RevokeArguments, RevokeReply

__all__ = [
    "COMMANDS",
    "add_consumer",
    "cancel_consumer",
    "commands_of",
    "control_command",
    "inspect_command",
]

#: The defined commands, by name.
COMMANDS: dict[str, Callable[..., Any]] = {}


def control_command(*args: Any, name: str | None = None, **_how: Any) -> Any:
    """Make a function a command of workers. Celery's other arguments describe it for a command line: without effect."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        COMMANDS[name or function.__name__] = function
        return function

    return define(args[0]) if args and callable(args[0]) else define


inspect_command = control_command


def add_consumer(*_: Any, **__: Any) -> NoReturn:
    """Refused: start a worker with `--queues`."""
    refuse("add_consumer", table=CONTROL)


def cancel_consumer(*_: Any, **__: Any) -> NoReturn:
    """Refused: start a worker with `--queues`."""
    refuse("cancel_consumer", table=CONTROL)


# --- answers


log = get_logger(__name__)


def commands_of(tasks: Tasks, host_runs: HostRuns | None) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """The commands of this worker by name.

    Parameters:
      tasks: the app's tasks in this worker.
      host_runs: the runs of the host's own tasks in this worker.
    """
    state = SimpleNamespace(app=tasks.app, hostname=tasks.name)
    own = {name: partial(_obey, command, state) for name, command in COMMANDS.items()}
    return {"revoke": partial(_revoke, tasks, host_runs), **own}


def _revoke(tasks: Tasks, host_runs: HostRuns | None, arguments: Mapping[str, Any]) -> RevokeReply:
    """The answer to `control.revoke`."""
    wanted = cast("RevokeArguments", arguments)
    task_ids = wanted["task_ids"]
    tasks.revoked.add(task_ids)
    running = [each for each in task_ids if tasks.watch.has(each)]
    ended = [each for each in task_ids if wanted["terminate"] and _terminate(tasks, host_runs, each)]
    log.info("tasks_revoked", count=len(task_ids), terminated=len(ended))
    said = f"tasks {', '.join(task_ids)} flagged as revoked" + (", terminated" if ended else "")
    return {"ok": said, "running": running}


def _terminate(tasks: Tasks, host_runs: HostRuns | None, task_id: str) -> bool:
    """End a caller's task that runs here, or one of the host's own."""
    return tasks.watch.end(task_id, Terminated) or (host_runs is not None and host_runs.terminate(task_id))


def _obey(command: Callable[..., Any], state: SimpleNamespace, arguments: Mapping[str, Any]) -> Any:
    """Call a command of a caller's own with its arguments."""
    return command(state, **arguments)

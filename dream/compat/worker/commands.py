"""What a worker of callers' tasks is told to do: to revoke some, and what commands of callers' own say (`control`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from dream.compat.worker.control import COMMANDS
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.compat.worker.actors import Tasks
    from dream.middleware.claims import Claims
    from dream.questions import RevokeArguments, RevokeReply

__all__ = ["commands_of"]

log = get_logger(__name__)


def commands_of(tasks: Tasks, claims: Claims | None) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """The commands by name, as `middleware.answering` takes them.

    Parameters:
      tasks: those of this worker.
      claims: runs of dream's own tasks, where this worker has them.
    """
    state = SimpleNamespace(app=tasks.app, hostname=tasks.name)
    own = {name: partial(_obey, command, state) for name, command in COMMANDS.items()}
    return {"revoke": partial(_revoke, tasks, claims), **own}


def _revoke(tasks: Tasks, claims: Claims | None, arguments: Mapping[str, Any]) -> RevokeReply:
    """The answer to `control.revoke`."""
    wanted = cast("RevokeArguments", arguments)
    task_ids = wanted["task_ids"]
    tasks.revoked.add(task_ids)
    running = [each for each in task_ids if tasks.watch.has(each)]
    ended = [each for each in task_ids if wanted["terminate"] and _terminate(tasks, claims, each)]
    log.info("tasks_revoked", count=len(task_ids), terminated=len(ended))
    said = f"tasks {', '.join(task_ids)} flagged as revoked" + (", terminated" if ended else "")
    return {"ok": said, "running": running}


def _terminate(tasks: Tasks, claims: Claims | None, task_id: str) -> bool:
    """End a caller's task that runs here, or one of ours."""
    return tasks.watch.terminate(task_id) or (claims is not None and claims.terminate(task_id))


def _obey(command: Callable[..., Any], state: SimpleNamespace, arguments: Mapping[str, Any]) -> Any:
    """A command of a caller's own, in the form of ours."""
    return command(state, **arguments)
